// The outline of a mask as closed rings (marching squares, Lorensen and Cline 1987, in 2-D).
(() => {
  "use strict";
  const hymunet = (globalThis.hymunet ??= {});

  // Corners of a cell as bits: 1 upper left, 2 upper right, 4 lower right, 8 lower left. Each case
  // lists pairs of sides (from, to), 0 top, 1 right, 2 bottom, 3 left, with the inside on the right.
  const CASES = [
    [], [[3, 0]], [[0, 1]], [[3, 1]], [[1, 2]], [[3, 0], [1, 2]], [[0, 2]], [[3, 2]],
    [[2, 3]], [[2, 0]], [[0, 1], [2, 3]], [[2, 1]], [[1, 3]], [[1, 0]], [[0, 3]], [],
  ];

  /**
   * Rings around what is 1; a pixel's centre is at (x + 0.5, y + 0.5), so that rings lie on a
   * picture drawn from (0, 0) to (width, height). Filled by the even-odd rule they hold the centres
   * of the structure's pixels and no others. Between two pixels a ring passes where the
   * probability reaches the threshold, which makes it smooth; where it does not say (a hole that was
   * filled, a part that was left out) halfway.
   * @param {Uint8Array} inside
   * @param {(Float32Array|Uint8Array)|null} probability
   * @param {number} threshold  in the unit of `probability`
   * @returns {[number, number][][]}
   */
  function contours(inside, width, height, probability = null, threshold = 0.5) {
    const padded = hymunet.masks.rimmed(inside, width, height);
    const stride = width + 1;
    // crossings are named by the upper or left one of the two pixels, and the direction
    const sideOf = (x, y, side) => {
      if (side === 0) return 2 * ((y + 1) * stride + x + 1);
      if (side === 1) return 2 * ((y + 1) * stride + x + 2) + 1;
      if (side === 2) return 2 * ((y + 2) * stride + x + 1);
      return 2 * ((y + 1) * stride + x + 1) + 1;
    };
    const next = new Map();
    for (let y = -1; y < height; y++) {
      for (let x = -1, i = (y + 1) * (width + 2); x < width; x++, i++) {
        const below = i + width + 2;
        const bits = padded[i] | (padded[i + 1] << 1) | (padded[below + 1] << 2) | (padded[below] << 3);
        if (bits === 0 || bits === 15) continue;
        for (const [from, to] of CASES[bits]) next.set(sideOf(x, y, from), sideOf(x, y, to));
      }
    }
    const place = (crossing) => {
      const down = crossing & 1;
      const cell = crossing >> 1;
      const x = (cell % stride) - 1;
      const y = (cell - (cell % stride)) / stride - 1;
      const [x2, y2] = down ? [x, y + 1] : [x + 1, y];
      const share = between(x, y, x2, y2);
      return down ? [x + 0.5, y + 0.5 + share] : [x + 0.5 + share, y + 0.5];
    };
    const between = (x, y, x2, y2) => {
      const beyond = x < 0 || y < 0 || x2 >= width || y2 >= height;
      if (!probability || beyond) return 0.5;
      const a = probability[y * width + x] - threshold;
      const b = probability[y2 * width + x2] - threshold;
      // strictly between the centres, so that each stays on its side
      return a * b < 0 ? Math.min(0.98, Math.max(0.02, a / (a - b))) : 0.5;
    };
    const rings = [];
    for (const start of next.keys()) {
      if (!next.has(start)) continue;
      const ring = [];
      for (let crossing = start; next.has(crossing); ) {
        ring.push(place(crossing));
        const following = next.get(crossing);
        next.delete(crossing);
        crossing = following;
      }
      rings.push(ring);
    }
    return rings;
  }

  /** Rings as a path for a canvas. */
  function pathOf(rings) {
    const path = new Path2D();
    for (const ring of rings) {
      ring.forEach(([x, y], i) => (i ? path.lineTo(x, y) : path.moveTo(x, y)));
      path.closePath();
    }
    return path;
  }

  hymunet.contours = contours;
  hymunet.pathOf = pathOf;
})();
