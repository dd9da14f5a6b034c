// SPDX-License-Identifier: Apache-2.0
// NumPy's file format, versions 1 to 3: numbers and booleans; objects are pickles and never read.

import { TYPES, isFloat, size } from "./tensors.js";

const MAGIC = "\x93NUMPY";
const NUMPY = { BOOL: "|b1", UINT8: "|u1", UINT16: "<u2", UINT32: "<u4", UINT64: "<u8", INT8: "|i1", INT16: "<i2", INT32: "<i4",
  INT64: "<i8", FP16: "<f2", FP32: "<f4", FP64: "<f8" };
const KINDS = Object.fromEntries(Object.entries(NUMPY).map(([datatype, descr]) => [descr.slice(1), datatype]));

export const isNpy = (bytes) => String.fromCharCode(...bytes.subarray(0, 6)) === MAGIC;

// {datatype, shape, values}. Throws for what is no array of numbers.
export function read(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const wide = bytes[6] > 1;
  if (bytes.length < 12 || bytes[6] < 1 || bytes[6] > 3) throw new Error(bytes.length < 12 ? "the .npy file is cut short" : `version ${bytes[6]} of .npy is not known`);
  const start = wide ? 12 : 10;
  const end = start + (wide ? view.getUint32(8, true) : view.getUint16(8, true));
  const header = new TextDecoder("latin1").decode(bytes.subarray(start, end));
  const descr = /'descr':\s*'([<>|=])([a-zA-Z]\d+)'/.exec(header);
  const dims = /'shape':\s*\(([\d,\s]*)\)/.exec(header);
  const datatype = descr && KINDS[descr[2]];
  if (!datatype || !dims) throw new Error("the .npy file holds no array of numbers");
  if (descr[1] === ">") throw new Error("the .npy file is big endian; save it as little endian");
  const shape = dims[1].split(",").map((d) => d.trim()).filter(Boolean).map(Number);
  const width = Number(descr[2].slice(1));
  const total = size(shape);
  if (bytes.length - end !== total * width) throw new Error(`the .npy file has ${bytes.length - end} bytes of data; ${shape.join(" × ")} needs ${total * width}`);
  const { make, half } = TYPES[datatype];
  const data = bytes.slice(end).buffer;
  let values = half ? Float32Array.from(new Uint16Array(data), half[1]) : new make(data);
  if (/'fortran_order':\s*True/.test(header)) values = rowMajor(values, shape);
  return { datatype, shape, values };
}

function rowMajor(values, shape) {
  const steps = shape.map((_, axis) => size(shape.slice(0, axis)));
  const out = new values.constructor(values.length);
  const index = shape.map(() => 0);
  for (let i = 0; i < out.length; i++) {
    out[i] = values[index.reduce((sum, n, axis) => sum + n * steps[axis], 0)];
    for (let axis = shape.length - 1; axis >= 0 && ++index[axis] === shape[axis]; axis--) index[axis] = 0;
  }
  return out;
}

// A tensor as a file; null for what NumPy has no type for.
export function write({ datatype, shape, values }) {
  const wide = datatype === "BF16" ? "FP32" : datatype;
  if (!NUMPY[wide]) return null;
  const { half } = TYPES[wide];
  const data = half ? Uint16Array.from(values, half[0]) : values;
  let header = `{'descr': '${NUMPY[wide]}', 'fortran_order': False, 'shape': (${shape.join(", ")}${shape.length === 1 ? "," : ""}), }`;
  header = `${header.padEnd(Math.ceil((header.length + 11) / 64) * 64 - 11)}\n`;
  const head = Uint8Array.from(`${MAGIC}\x01\x00`, (c) => c.charCodeAt(0));
  const length = new Uint8Array([header.length & 255, header.length >> 8]);
  return new Blob([head, length, header, data]);
}

// Values of one type as another: floats from anything, whole numbers from whole numbers.
export function converted(array, datatype) {
  if (array.datatype === datatype) return array.values;
  if (isFloat(array.datatype) && !isFloat(datatype)) throw new Error(`the file holds ${array.datatype}; the input is ${datatype}`);
  return Array.from(array.values);
}
