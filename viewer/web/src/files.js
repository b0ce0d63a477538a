// What the page gives to take away: CSV, PNG and GIfTI, made in the browser.

export function save(name, content, type) {
  const link = document.createElement("a");
  link.href = content instanceof Blob ? URL.createObjectURL(content) : URL.createObjectURL(new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

const quoted = (text) => (/[",\n]/.test(text) ? `"${String(text).replaceAll('"', '""')}"` : text);

/** columns: {name: array}; one line a voxel. */
export function csv(columns) {
  const names = Object.keys(columns);
  const n = columns[names[0]].length;
  const lines = [names.map(quoted).join(",")];
  for (let i = 0; i < n; i++) lines.push(names.map((k) => quoted(columns[k][i] ?? "")).join(","));
  return lines.join("\n") + "\n";
}

function base64(floats) {
  const bytes = new Uint8Array(floats.buffer, floats.byteOffset, floats.byteLength);
  let raw = "";
  for (let i = 0; i < bytes.length; i += 8192) raw += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return btoa(raw);
}

const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");

/** One hemisphere's values as a GIfTI file: NIfTI_INTENT_NONE, float32, NaN where there is no voxel. */
export function gifti(values, structure, name) {
  return `<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE GIFTI SYSTEM "http://www.nitrc.org/frs/download.php/115/gifti.dtd">
<GIFTI Version="1.0" NumberOfDataArrays="1">
<MetaData><MD><Name>AnatomicalStructurePrimary</Name><Value>${structure}</Value></MD></MetaData>
<LabelTable/>
<DataArray Intent="NIFTI_INTENT_NONE" DataType="NIFTI_TYPE_FLOAT32" ArrayIndexingOrder="RowMajorOrder"
 Dimensionality="1" Dim0="${values.length}" Encoding="Base64Binary" Endian="LittleEndian"
 ExternalFileName="" ExternalFileOffset="">
<MetaData><MD><Name>Name</Name><Value>${escaped(name)}</Value></MD></MetaData>
<Data>${base64(values)}</Data></DataArray></GIFTI>
`;
}
