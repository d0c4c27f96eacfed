// Paper: says when the page has turned dark or light, so that what the server draws is drawn anew on the page's paper.
export default function ({ parentElement, setTriggerValue }) {
  const seat = parentElement.querySelector(".ll-turn");
  if (!seat) return;
  const probe = document.createElement("canvas").getContext("2d");
  probe.fillStyle = getComputedStyle(seat).getPropertyValue("--st-background-color").trim() || "#fff";
  probe.fillRect(0, 0, 1, 1);
  const [red, green, blue] = probe.getImageData(0, 0, 1, 1).data, dark = red + green + blue < 384;
  const before = seat.dataset.dark;
  seat.dataset.dark = dark;
  if (before !== undefined && before !== String(dark)) setTriggerValue("turned", dark);
}
