// Arrays as the page carries them: base64 of little-endian numbers, int16 with one scale.

function bytesOf(text) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes.buffer;
}

const KINDS = { int8: Int8Array, int16: Int16Array, int32: Int32Array, uint16: Uint16Array, float32: Float32Array };
const MISSING = -32768; // int16 that stands for NaN

/** {kind, scale?, data} -> typed array; with a scale, float32 values. */
export function unpack(packed) {
  if (!packed) return null;
  const numbers = new KINDS[packed.kind](bytesOf(packed.data));
  if (packed.scale === undefined) return numbers;
  const values = new Float32Array(numbers.length);
  for (let i = 0; i < values.length; i++) values[i] = numbers[i] === MISSING ? NaN : numbers[i] * packed.scale;
  return values;
}

/** The q-quantile of the finite absolute values. */
export function absQuantile(arrays, q) {
  const all = [];
  for (const array of arrays) for (const v of array) if (Number.isFinite(v)) all.push(Math.abs(v));
  if (!all.length) return 1;
  all.sort((a, b) => a - b);
  return all[Math.min(all.length - 1, Math.floor(q * all.length))] || 1;
}

export function minus(a, b) {
  return a.map((v, i) => v - b[i]);
}
