// Connects an alignment with its video: clicks play it, and its position is shown in the heat maps.

const seconds = () => Number(element.querySelector(".alignment").dataset.seconds);

// The matrices are the only wide images of the figure. The bars of colours are narrow.
const matrices = () => [...element.querySelectorAll(".figure svg image")].filter(
  (image) => image.getBoundingClientRect().width > 60);

function clickedSecond(event) {
  const row = event.target.closest("[data-start]");
  if (row) return Number(row.dataset.start);
  for (const matrix of matrices()) {
    const box = matrix.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width;
    const y = (event.clientY - box.top) / box.height;
    if (0 <= x && x < 1 && 0 <= y && y < 1) return x * seconds();
  }
  return null;
}

function play(event) {
  const video = element.querySelector("video");
  const second = clickedSecond(event);
  if (!video || second === null) return;
  video.currentTime = second;
  video.play();
}

function showPosition({target: video}) {
  element.querySelectorAll(".cursor").forEach((cursor) => cursor.remove());
  const figure = element.querySelector(".figure");
  const origin = figure.getBoundingClientRect();
  for (const matrix of matrices()) {
    const box = matrix.getBoundingClientRect();
    const cursor = figure.appendChild(document.createElement("i"));
    cursor.className = "cursor";
    const x = box.left - origin.left + box.width * video.currentTime / seconds();
    Object.assign(cursor.style, {
      left: `${x + figure.scrollLeft}px`, top: `${box.top - origin.top + figure.scrollTop}px`,
      height: `${box.height}px`});
  }
  for (const row of element.querySelectorAll("[data-start]")) {
    const {start, end} = row.dataset;
    row.classList.toggle("now", start <= video.currentTime && video.currentTime < end);
  }
}

element.addEventListener("click", play);
element.addEventListener("keydown", (event) => event.key === "Enter" && play(event));
element.addEventListener("timeupdate", showPosition, true); // it does not bubble
