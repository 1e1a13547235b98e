"""What every notebook does first and last: start, announce, experiment, judge, finish."""
