// Masks as arrays: from probabilities to class indices, and the cleaning up that a model asks for.
// The same rules as hymunet.inference.predictor (cut) and hymunet.inference.postprocess, which the
// tests hold against these; a mask holds class indices, 0 the background, row after row.
(() => {
  "use strict";
  const hymunet = (globalThis.hymunet ??= {});

  /**
   * Class indices from one probability a structure: the last structure that reaches the threshold.
   * @param {(Float32Array|Uint8Array)[]} probability  one a structure; bytes are round(255 p)
   * @param {number} threshold  in (0, 1)
   * @returns {Uint8Array}
   */
  function cut(probability, threshold) {
    const mask = new Uint8Array(probability[0].length);
    probability.forEach((one, k) => {
      // the network's numbers are float32, and so is the threshold that it is compared with
      const limit = one instanceof Uint8Array ? threshold * 255 : Math.fround(threshold);
      for (let i = 0; i < one.length; i++) if (one[i] >= limit) mask[i] = k + 1;
    });
    return mask;
  }

  /** 1 inside structure `index`: the index itself, or it and all above where structures are nested. */
  function structure(mask, index, nested) {
    const inside = new Uint8Array(mask.length);
    if (nested) for (let i = 0; i < mask.length; i++) inside[i] = mask[i] >= index;
    else for (let i = 0; i < mask.length; i++) inside[i] = mask[i] === index;
    return inside;
  }

  /** The same with a rim of zeros, one pixel wide: (height + 2, width + 2). */
  function rimmed(inside, width, height) {
    const padded = new Uint8Array((width + 2) * (height + 2));
    for (let y = 0; y < height; y++)
      padded.set(inside.subarray(y * width, (y + 1) * width), (y + 1) * (width + 2) + 1);
    return padded;
  }

  /**
   * Connected parts of what is 1, numbered from 1 in raster order.
   * @param {boolean} corners  whether touching corners connect
   * @returns {{labels: Int32Array, sizes: number[]}}  sizes[n] of part n; sizes[0] is 0
   */
  function parts(inside, width, height, corners) {
    const labels = new Int32Array(inside.length);
    const sizes = [0];
    let stack = new Int32Array(1024);
    for (let start = 0; start < inside.length; start++) {
      if (!inside[start] || labels[start]) continue;
      const label = sizes.length;
      let count = 0;
      let top = 0;
      stack[top++] = start;
      labels[start] = label;
      while (top) {
        const at = stack[--top];
        count++;
        const x = at % width;
        const y = (at - x) / width;
        if (top + 8 > stack.length) {
          const larger = new Int32Array(2 * stack.length);
          larger.set(stack);
          stack = larger;
        }
        for (let dy = -1; dy <= 1; dy++) {
          if (y + dy < 0 || y + dy >= height) continue;
          for (let dx = -1; dx <= 1; dx++) {
            if (x + dx < 0 || x + dx >= width || (!corners && dx && dy)) continue;
            const near = at + dy * width + dx;
            if (inside[near] && !labels[near]) {
              labels[near] = label;
              stack[top++] = near;
            }
          }
        }
      }
      sizes.push(count);
    }
    return { labels, sizes };
  }

  function keepLargest(mask, width, height, index, nested) {
    const { labels, sizes } = parts(structure(mask, index, nested), width, height, true);
    let largest = 1; // of equally large ones the first in raster order
    for (let part = 2; part < sizes.length; part++) if (sizes[part] > sizes[largest]) largest = part;
    for (let i = 0; i < mask.length; i++)
      if (labels[i] && labels[i] !== largest) mask[i] = nested ? index - 1 : 0;
  }

  function fillHoles(mask, width, height, index, nested) {
    const inside = structure(mask, index, nested);
    const outside = parts(inside.map((one) => 1 - one), width, height, false);
    const open = new Uint8Array(outside.sizes.length); // parts that reach the frame
    for (let x = 0; x < width; x++) open[outside.labels[x]] = open[outside.labels[mask.length - 1 - x]] = 1;
    for (let y = 0; y < height; y++)
      open[outside.labels[y * width]] = open[outside.labels[(y + 1) * width - 1]] = 1;
    const hole = outside.labels.map((label) => (label && !open[label] ? 1 : 0));
    if (nested) {
      for (let i = 0; i < mask.length; i++) if (hole[i]) mask[i] = index;
      return;
    }
    // other structures that lie in the hole stay; background within them is not this one's
    const empty = Uint8Array.from(hole, (one, i) => (one && mask[i] === 0 ? 1 : 0));
    const pieces = parts(empty, width, height, false);
    const touches = new Uint8Array(pieces.sizes.length);
    for (let i = 0; i < mask.length; i++) {
      if (!pieces.labels[i]) continue;
      const x = i % width; // a hole never lies on the frame's first or last row
      if (inside[i - width] || inside[i + width] || (x > 0 && inside[i - 1]) || (x + 1 < width && inside[i + 1]))
        touches[pieces.labels[i]] = 1;
    }
    for (let i = 0; i < mask.length; i++) if (touches[pieces.labels[i]]) mask[i] = index;
  }

  /**
   * The mask cleaned up: smaller parts go, the first structure's first; then holes are filled, the
   * last structure's first. The input stays as it is.
   * @param {Object<string, string[]>} operations  structure -> "keep_largest", "fill_holes"
   */
  function postprocess(mask, width, height, classes, nested, operations) {
    if (!operations || !Object.keys(operations).length) return mask;
    const cleaned = mask.slice();
    const asked = (name, operation) => (operations[name] || []).includes(operation);
    for (let k = 1; k <= classes.length; k++)
      if (asked(classes[k - 1], "keep_largest")) keepLargest(cleaned, width, height, k, nested);
    for (let k = classes.length; k >= 1; k--)
      if (asked(classes[k - 1], "fill_holes")) fillHoles(cleaned, width, height, k, nested);
    return cleaned;
  }

  /**
   * Stored values -> class indices, as masks are read: class indices, the model's own values, or
   * for one structure anything from the middle of the range up, which a JPEG may have greyed.
   * @returns {Uint8Array|null}  null where a value is none of these
   */
  function classIndices(values, labelValues) {
    let most = 0;
    for (const value of values) if (value > most) most = value;
    if (labelValues.length === 2) return Uint8Array.from(values, (value) => (most > 1 ? value > 127 : value));
    const index = new Map(labelValues.map((value, k) => [value, k]));
    const known = (value) => index.has(value);
    if (values.every(known)) return Uint8Array.from(values, (value) => index.get(value));
    return most < labelValues.length ? Uint8Array.from(values) : null;
  }

  /** Dice, 2|A & B| / (|A| + |B|), of a structure in two masks; 1 when both are empty. */
  function dice(one, other, index, nested) {
    const a = structure(one, index, nested);
    const b = structure(other, index, nested);
    let both = 0;
    let sum = 0;
    for (let i = 0; i < a.length; i++) {
      both += a[i] & b[i];
      sum += a[i] + b[i];
    }
    return sum ? (2 * both) / sum : 1;
  }

  hymunet.masks = { cut, structure, rimmed, parts, postprocess, classIndices, dice };
})();
