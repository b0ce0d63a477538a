// Colour maps that people with colour-blindness can read, and colours of ROIs.

const MAPS = {
  "blue-red": ["#053061", "#2166ac", "#4393c3", "#92c5de", "#f7f7f7", "#f4a582", "#d6604d", "#b2182b", "#67001f"],
  "purple-orange": ["#2d004b", "#542788", "#8073ac", "#b2abd2", "#f7f7f7", "#fdb863", "#e08214", "#b35806", "#7f3b08"],
  cividis: ["#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#fee838"],
};
export const DIVERGING = ["blue-red", "purple-orange", "cividis"];
// Okabe and Ito, then Tol's muted set
export const ROI_COLOURS = [
  "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#d55e00", "#cc79a7", "#0072b2", "#882255",
  "#44aa99", "#999933", "#aa4499", "#ddcc77", "#88ccee", "#117733", "#cc6677", "#332288",
];

function rgb(hex) {
  return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16) / 255);
}

/** t in 0..1 -> [r, g, b] in 0..1. */
export function colourOf(name, t) {
  const stops = MAPS[name];
  const at = Math.min(Math.max(t, 0), 1) * (stops.length - 1);
  const i = Math.min(Math.floor(at), stops.length - 2);
  const [a, b] = [rgb(stops[i]), rgb(stops[i + 1])];
  return a.map((v, k) => v + (b[k] - v) * (at - i));
}

/** 256 colours as a flat array, for painting many vertices quickly. */
export function table(name) {
  const colours = new Float32Array(256 * 3);
  for (let i = 0; i < 256; i++) colours.set(colourOf(name, i / 255), 3 * i);
  return colours;
}

export function gradient(name) {
  return `linear-gradient(90deg, ${MAPS[name].join(",")})`;
}
