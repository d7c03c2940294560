// What a mask says in numbers: the rows of measurements.json, as `hymunet predict` writes them.
(() => {
  "use strict";
  const hymunet = (globalThis.hymunet ??= {});
  const { masks } = hymunet;
  const rounded = (value, digits) => Number(value.toFixed(digits));

  /** How often pixels differ from the one `step` further on; what lies outside is 0. */
  function changes(padded, step) {
    let count = 0;
    for (let i = 0; i + step < padded.length; i++) count += padded[i] ^ padded[i + step];
    return count;
  }

  /**
   * Length of an outline by Crofton's formula in four directions; see hymunet.metrics.shape.
   * @param {[number, number]} spacing  height and width of a pixel
   */
  function perimeter(inside, width, height, spacing = [1, 1]) {
    const [high, wide] = spacing;
    const slope = Math.atan2(high, wide);
    const diagonal = (high * wide) / Math.hypot(high, wide);
    const padded = masks.rimmed(inside, width, height);
    const row = width + 2;
    const along = (step) => changes(padded, step);
    return (
      0.5 *
      (slope * high * along(1) +
        (Math.PI / 2 - slope) * wide * along(row) +
        (Math.PI / 4) * diagonal * (along(row + 1) + along(row - 1)))
    );
  }

  /**
   * One row a class.
   * @param {Uint8Array} mask  class indices
   * @param {[number, number]|null} spacing  mm a pixel, (height, width); null: pixels only
   */
  function measure(mask, width, height, classes, nested, spacing) {
    return classes.map((name, k) => ({
      class: name,
      ...one(masks.structure(mask, k + 1, nested), width, height, spacing),
    }));
  }

  function one(inside, width, height, spacing) {
    const box = [height, 0, width, 0]; // first and one past the last, rows then columns
    let count = 0;
    let rows = 0;
    let columns = 0;
    for (let y = 0, i = 0; y < height; y++) {
      for (let x = 0; x < width; x++, i++) {
        if (!inside[i]) continue;
        count++;
        rows += y;
        columns += x;
        if (y < box[0]) box[0] = y;
        if (y >= box[1]) box[1] = y + 1;
        if (x < box[2]) box[2] = x;
        if (x >= box[3]) box[3] = x + 1;
      }
    }
    const row = { area_px: count, fraction: count / (width * height), parts: 0, bounding_box: null, centroid: null };
    if (count) {
      row.bounding_box = [box.slice(0, 2), box.slice(2)];
      row.centroid = [rounded(rows / count, 2), rounded(columns / count, 2)];
      row.parts = masks.parts(inside, width, height, true).sizes.length - 1;
    }
    row.perimeter_px = rounded(perimeter(inside, width, height), 2);
    row.diameter_px = rounded(2 * Math.sqrt(count / Math.PI), 2);
    if (spacing) {
      const area = count * spacing[0] * spacing[1];
      row.area_mm2 = rounded(area, 4);
      row.perimeter_mm = rounded(perimeter(inside, width, height, spacing), 4);
      row.diameter_mm = rounded(2 * Math.sqrt(area / Math.PI), 4);
    }
    return row;
  }

  hymunet.measure = measure;
})();
