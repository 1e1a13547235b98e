// Formulas first, then the size of the text, while every slide is laid out; then the show.
const SIZES = [1.3, 1.2, 1.1, 1]; // of 24 pixels; a slide with room to spare is set larger

function fit(slide) {
  const shows = slide.querySelector("pre, table, img") !== null;
  for (const size of shows ? SIZES : [1.4, ...SIZES]) {
    slide.style.setProperty("--size", size);
    const wide = [...slide.querySelectorAll("pre, table, mjx-container")].some(
      (part) => part.scrollWidth > part.parentElement.clientWidth
    );
    if (slide.scrollHeight <= 680 && slide.scrollWidth <= 1280 && !wide) return;
  }
}

// The foot of a slide names the talk and the section that it belongs to.
function sign(slides) {
  let section = "";
  for (const slide of slides.slice(1)) {
    const heading = slide.querySelector("h1, h2, h3");
    if (slide === slide.parentElement.firstElementChild) section = "";
    slide.dataset.where = [document.title, heading ? "" : section].filter(Boolean).join(" · ");
    if (heading) section = heading.textContent;
  }
}

async function start() {
  await MathJax.startup.promise;
  await document.fonts.ready;
  await Promise.all([...document.images].map((image) => image.decode().catch(() => {})));
  const slides = [...document.querySelectorAll(".slides > section > section")];
  slides.forEach((slide) => slide.classList.add("leaf"));
  slides[0].classList.add("opening");
  slides.forEach(fit);
  sign(slides);
  document.body.classList.remove("measuring");
  await Reveal.initialize({
    width: 1280,
    height: 720,
    margin: 0,
    center: false,
    hash: true,
    transition: "none",
    backgroundTransition: "none",
    slideNumber: "c/t",
    controlsTutorial: false,
    pdfSeparateFragments: false,
    pdfMaxPagesPerSlide: 1,
    plugins: [RevealNotes],
  });
}

start();
