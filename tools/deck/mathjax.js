window.MathJax = {
  tex: {
    inlineMath: [["$", "$"], ["\\(", "\\)"]],
    processEscapes: true,
    // An unknown command is an error that the deck's test sees, not red letters.
    packages: { "[-]": ["noundefined", "noerrors"] },
  },
  svg: { fontCache: "local", scale: 0.92 },
  options: { enableMenu: false, enableAssistiveMml: false },
};
