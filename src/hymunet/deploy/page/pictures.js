// Files to pixels and masks to files.
(() => {
  "use strict";
  const hymunet = (globalThis.hymunet ??= {});

  /**
   * The upright picture, as its EXIF orientation says, in the file's own numbers: neither a colour
   * profile nor transparency changes them, as in `hymunet predict`.
   * @param {Blob} file
   * @returns {Promise<ImageBitmap>}
   */
  async function decode(file) {
    try {
      return await createImageBitmap(file, { colorSpaceConversion: "none", imageOrientation: "from-image" });
    } catch {
      throw new Error(
        `${file.name || "the picture"} cannot be read by this browser; expected PNG, JPEG, WebP, GIF or ` +
          "BMP: export it again as one of them (PNG keeps every number)",
      );
    }
  }

  /**
   * Numbers of a decoded picture, on black where it is transparent.
   * @param {1|3|4} channels  1: luma (ITU-R BT.601); 3: red, green, blue; 4: as a canvas has them
   * @returns {Uint8Array}  (height, width, channels)
   */
  function pixels(bitmap, channels) {
    const { width, height } = bitmap;
    const canvas = new OffscreenCanvas(width, height);
    const context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
    context.drawImage(bitmap, 0, 0);
    const { data } = context.getImageData(0, 0, width, height);
    if (channels === 4) return new Uint8Array(data.buffer);
    const values = new Uint8Array(width * height * channels);
    for (let i = 0, from = 0, to = 0; i < width * height; i++, from += 4, to += channels) {
      if (channels === 1) {
        values[to] = Math.round(0.299 * data[from] + 0.587 * data[from + 1] + 0.114 * data[from + 2]);
      } else {
        values[to] = data[from];
        values[to + 1] = data[from + 1];
        values[to + 2] = data[from + 2];
      }
    }
    return values;
  }

  /** The first channel of a picture file (grey PNGs of masks and probabilities), with its size. */
  async function grey(file) {
    const bitmap = await decode(file);
    const all = pixels(bitmap, 4);
    const values = new Uint8Array(bitmap.width * bitmap.height);
    for (let i = 0; i < values.length; i++) values[i] = all[4 * i];
    return { values, width: bitmap.width, height: bitmap.height };
  }

  /** Base64 -> bytes. */
  function bytes(text) {
    const letters = atob(text);
    const values = new Uint8Array(letters.length);
    for (let i = 0; i < values.length; i++) values[i] = letters.charCodeAt(i);
    return values;
  }

  const CRC = Uint32Array.from({ length: 256 }, (_, n) => {
    for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
    return n;
  });

  /** A chunk of a PNG file: length, name, content, check sum (PNG specification, section 5.3). */
  function chunk(name, content) {
    const bytes = new Uint8Array(content.length + 12);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, content.length);
    bytes.set(new TextEncoder().encode(name), 4);
    bytes.set(content, 8);
    let crc = ~0;
    for (const byte of bytes.subarray(4, bytes.length - 4)) crc = CRC[(crc ^ byte) & 255] ^ (crc >>> 8);
    view.setUint32(bytes.length - 4, ~crc);
    return bytes;
  }

  /**
   * An 8-bit grey PNG: what a canvas writes has four channels, which no tool takes for a mask.
   * @param {Uint8Array} values  (height, width)
   * @returns {Promise<Blob>}
   */
  async function greyPng(values, width, height) {
    const rows = new Uint8Array((width + 1) * height); // a 0, "no filter", before each row
    for (let y = 0; y < height; y++) rows.set(values.subarray(y * width, (y + 1) * width), y * (width + 1) + 1);
    const deflated = new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate"));
    const head = new Uint8Array(13);
    new DataView(head.buffer).setUint32(0, width);
    new DataView(head.buffer).setUint32(4, height);
    head.set([8, 0, 0, 0, 0], 8); // 8 bits, grey, and the only methods that there are
    const signature = Uint8Array.of(137, 80, 78, 71, 13, 10, 26, 10);
    const body = new Uint8Array(await new Response(deflated).arrayBuffer());
    return new Blob([signature, chunk("IHDR", head), chunk("IDAT", body), chunk("IEND", new Uint8Array())], {
      type: "image/png",
    });
  }

  hymunet.pictures = { bytes, decode, pixels, grey, greyPng };
})();
