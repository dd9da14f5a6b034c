// SPDX-License-Identifier: Apache-2.0
// Tensors {name, datatype, shape, values} and the bytes they are on the wire (little endian, no padding).

const whole = (bits, signed) => (signed ? [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] : [0, 2 ** bits - 1]);

// make: the array that holds the values; range: of whole numbers.
export const TYPES = {
  BOOL: { make: Uint8Array },
  UINT8: { make: Uint8Array, range: whole(8, false) },
  UINT16: { make: Uint16Array, range: whole(16, false) },
  UINT32: { make: Uint32Array, range: whole(32, false) },
  UINT64: { make: BigUint64Array, range: [0n, 2n ** 64n - 1n] },
  INT8: { make: Int8Array, range: whole(8, true) },
  INT16: { make: Int16Array, range: whole(16, true) },
  INT32: { make: Int32Array, range: whole(32, true) },
  INT64: { make: BigInt64Array, range: [-(2n ** 63n), 2n ** 63n - 1n] },
  FP16: { make: Float32Array, half: [toHalf, fromHalf] },
  BF16: { make: Float32Array, half: [toBrain, fromBrain] },
  FP32: { make: Float32Array },
  FP64: { make: Float64Array },
};

export const isFloat = (datatype) => /^(FP|BF)/.test(datatype);
export const size = (dims) => dims.reduce((a, b) => a * b, 1);

const bits = new DataView(new ArrayBuffer(4));

function toBrain(value) {
  bits.setFloat32(0, value);
  const all = bits.getUint32(0);
  if (Number.isNaN(value)) return (all >>> 16) | 0x40;
  return (all + 0x7fff + ((all >>> 16) & 1)) >>> 16; // to the nearest, ties to even
}

function fromBrain(half) {
  bits.setUint32(0, half << 16);
  return bits.getFloat32(0);
}

function toHalf(value) {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const size = Math.abs(value);
  if (Number.isNaN(value)) return 0x7e00;
  if (size >= 65520) return sign | 0x7c00;
  if (size < 2 ** -14) return sign | even(size * 2 ** 24);
  const exponent = Math.min(15, Math.floor(Math.log2(size)));
  return sign + ((exponent + 15) << 10) + even((size / 2 ** exponent - 1) * 1024); // a carry goes to the exponent
}

function even(value) {
  const low = Math.floor(value);
  return value - low > 0.5 || (value - low === 0.5 && low % 2) ? low + 1 : low;
}

function fromHalf(half) {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >> 10) & 31;
  const rest = half & 1023;
  if (exponent === 31) return rest ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + rest / 1024) : 2 ** -24 * rest);
}

// Numbers, as text or as numbers, to what the datatype holds. What does not fit is refused, never wrapped around.
export function hold(datatype, given) {
  if (datatype === "BYTES") return given.map(String);
  const type = TYPES[datatype];
  if (!type) throw new Error(`this page cannot make ${datatype}`);
  const values = new type.make(given.length);
  const large = type.make === BigInt64Array || type.make === BigUint64Array;
  for (let i = 0; i < given.length; i++) values[i] = one(datatype, type, large, given[i]);
  return values;
}

function one(datatype, type, large, given) {
  if (datatype === "BOOL") {
    const known = { true: 1, false: 0, 1: 1, 0: 0 }[String(given).toLowerCase()];
    if (known === undefined) throw new Error(`${given} is neither true nor false`);
    return known;
  }
  if (!type.range) {
    const value = Number(String(given).replace(/^([+-]?)inf$/i, "$1Infinity"));
    if (Number.isNaN(value) && !Number.isNaN(given) && !/^nan$/i.test(given)) throw new Error(`${given} is not a number`);
    return value;
  }
  let value;
  try {
    value = large ? BigInt(given) : Number(given);
  } catch {
    value = NaN;
  }
  if (!large && !Number.isInteger(value)) value = NaN;
  if (!(value >= type.range[0] && value <= type.range[1])) throw new Error(`${given} does not fit ${datatype}: whole numbers from ${type.range[0]} to ${type.range[1]}`);
  return value;
}

function encode({ datatype, values }) {
  if (datatype === "BYTES") {
    const texts = values.map((v) => new TextEncoder().encode(v));
    const bytes = new Uint8Array(texts.reduce((n, t) => n + 4 + t.length, 0));
    const view = new DataView(bytes.buffer);
    let at = 0;
    for (const text of texts) {
      view.setUint32(at, text.length, true);
      bytes.set(text, at + 4);
      at += 4 + text.length;
    }
    return bytes;
  }
  const { half } = TYPES[datatype];
  const plain = half ? Uint16Array.from(values, half[0]) : values;
  return new Uint8Array(plain.buffer, plain.byteOffset, plain.byteLength);
}

function decode(datatype, bytes) {
  const copy = bytes.slice(); // aligned
  if (datatype !== "BYTES") {
    const { make, half } = TYPES[datatype];
    return half ? Float32Array.from(new Uint16Array(copy.buffer), half[1]) : new make(copy.buffer);
  }
  const values = [];
  const view = new DataView(copy.buffer);
  for (let at = 0; at < copy.length; ) {
    const length = view.getUint32(at, true);
    values.push(new TextDecoder().decode(copy.subarray(at + 4, at + 4 + length)));
    at += 4 + length;
  }
  return values;
}

// A request: its JSON header, then the tensors.
export function joined(inputs, parameters = {}) {
  const blobs = inputs.map(encode);
  const rows = inputs.map((t, i) => ({ name: t.name, datatype: t.datatype, shape: t.shape, parameters: { binary_data_size: blobs[i].length } }));
  const header = new TextEncoder().encode(JSON.stringify({ inputs: rows, parameters: { ...parameters, binary_data_output: true } }));
  return { header: header.length, body: new Blob([header, ...blobs]) };
}

// A response; header: bytes of its JSON, 0 if it is nothing else.
export function split(buffer, header) {
  const bytes = new Uint8Array(buffer);
  const head = JSON.parse(new TextDecoder().decode(header ? bytes.subarray(0, header) : bytes));
  let at = header;
  const outputs = head.outputs.map((o) => {
    const length = o.parameters?.binary_data_size ?? 0;
    at += length;
    return { name: o.name, datatype: o.datatype, shape: o.shape, values: o.data ? hold(o.datatype, o.data) : decode(o.datatype, bytes.subarray(at - length, at)) };
  });
  return { version: head.model_version, outputs };
}
