// The picture on the canvas: zoom, pan, what is drawn on it, and the line of the ruler.
(() => {
  "use strict";
  const hymunet = (globalThis.hymunet ??= {});

  // Okabe and Ito's colours, as in hymunet.inference.overlay: told apart by colour-blind eyes too
  const COLOURS = [[86, 180, 233], [230, 159, 0], [0, 158, 115], [240, 228, 66], [213, 94, 0], [204, 121, 167]];
  const MOST = 40; // screen pixels for one of the picture

  const colourOf = (k) => COLOURS[k % COLOURS.length];
  const css = (k) => `rgb(${colourOf(k).join(" ")})`;

  /** A canvas of the mask's size with the classes' colours where the mask is, clear elsewhere. */
  function tinted(mask, width, height) {
    const canvas = new OffscreenCanvas(width, height);
    const picture = new ImageData(width, height);
    const bytes = new Uint8Array(256 * 4); // the colour of each index; that of the background is clear
    for (let index = 1; index < 256; index++) bytes.set([...colourOf(index - 1), 255], 4 * index);
    const colours = new Uint32Array(bytes.buffer);
    const words = new Uint32Array(picture.data.buffer);
    for (let i = 0; i < mask.length; i++) words[i] = colours[mask[i]];
    canvas.getContext("2d").putImageData(picture, 0, 0);
    return canvas;
  }

  /**
   * Draws a picture and its layers so that one pixel of the picture is `scale` of the context's.
   * @param {object} layers  {bitmap, width, height, tint, outlines: Path2D[], reference: Path2D[]}
   * @param {object} shown  {opacity: 0..1, outline: boolean}
   */
  function paint(context, layers, shown, scale, left, top) {
    context.setTransform(scale, 0, 0, scale, left, top);
    context.imageSmoothingEnabled = scale < 3; // pixels, where one can see them
    context.imageSmoothingQuality = "high";
    if (layers.bitmap) context.drawImage(layers.bitmap, 0, 0, layers.width, layers.height);
    else {
      context.fillStyle = "#000";
      context.fillRect(0, 0, layers.width, layers.height);
    }
    if (shown.alone) return;
    if (layers.tint && shown.opacity > 0) {
      context.globalAlpha = shown.opacity;
      context.drawImage(layers.tint, 0, 0);
      context.globalAlpha = 1;
    }
    context.lineJoin = "round";
    const stroke = (path, width, style, dash = []) => {
      context.lineWidth = width / scale;
      context.strokeStyle = style;
      context.setLineDash(dash.map((length) => length / scale));
      context.stroke(path);
    };
    const unit = shown.unit || 1;
    for (const path of layers.reference || []) {
      stroke(path, 3.5 * unit, "rgb(0 0 0 / 60%)");
      stroke(path, 1.7 * unit, "#fff", [6 * unit, 4 * unit]);
    }
    if (shown.outline) {
      (layers.outlines || []).forEach((path, k) => {
        stroke(path, 4 * unit, "rgb(0 0 0 / 55%)");
        stroke(path, 2.2 * unit, css(k));
      });
    }
    context.setLineDash([]);
  }

  class View {
    /**
     * @param {HTMLCanvasElement} canvas
     * @param {{onChange: function, onLine: function}} told  after a zoom; when a line is drawn
     */
    constructor(canvas, told) {
      this.canvas = canvas;
      this.told = told;
      this.layers = null;
      this.shown = { opacity: 0.25, outline: true, alone: false };
      this.ruler = null; // null: off; else {from, to} in the picture's pixels
      this.measuring = false;
      this.pointers = new Map();
      this.scale = 1;
      this.left = this.top = 0;
      this.fitted = true;
      new ResizeObserver(() => this.resized()).observe(canvas);
      canvas.addEventListener("pointerdown", (event) => this.down(event));
      canvas.addEventListener("pointermove", (event) => this.move(event));
      for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => this.up(event));
      canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
      canvas.addEventListener("dblclick", () => this.fit());
    }

    /** Shows a picture; the same size keeps the place, so that pictures can be compared. */
    show(layers, keep = false) {
      this.layers = layers;
      if (keep && !this.fitted) this.draw();
      else this.fit();
    }

    resized() {
      const { clientWidth, clientHeight } = this.canvas;
      const dense = devicePixelRatio || 1;
      this.canvas.width = Math.round(clientWidth * dense);
      this.canvas.height = Math.round(clientHeight * dense);
      if (this.fitted) this.fit();
      else this.draw();
    }

    get whole() {
      const { clientWidth, clientHeight } = this.canvas;
      const { width, height } = this.layers;
      return Math.max(0.01, Math.min((clientWidth - 16) / width, (clientHeight - 16) / height));
    }

    fit() {
      if (!this.layers || !this.canvas.clientWidth) return;
      this.scale = Math.min(this.whole, 12);
      this.left = (this.canvas.clientWidth - this.layers.width * this.scale) / 2;
      this.top = (this.canvas.clientHeight - this.layers.height * this.scale) / 2;
      this.fitted = true;
      this.changed();
    }

    /** Zooms by a factor around a place on the canvas, its middle by default. */
    zoom(factor, x = this.canvas.clientWidth / 2, y = this.canvas.clientHeight / 2) {
      if (!this.layers) return;
      const wanted = Math.min(MOST, Math.max(Math.min(this.whole, 1) / 2, this.scale * factor));
      const step = wanted / this.scale;
      this.scale = wanted;
      this.left = x - (x - this.left) * step;
      this.top = y - (y - this.top) * step;
      this.moved();
    }

    pan(x, y) {
      this.left += x;
      this.top += y;
      this.moved();
    }

    moved() {
      // some of the picture always stays in sight
      const { clientWidth, clientHeight } = this.canvas;
      const clamp = (place, side, room) => Math.min(room - 40, Math.max(40 - side, place));
      this.left = clamp(this.left, this.layers.width * this.scale, clientWidth);
      this.top = clamp(this.top, this.layers.height * this.scale, clientHeight);
      this.fitted = false;
      this.changed();
    }

    changed() {
      // with the whole picture in sight one finger scrolls the page, as anywhere on it
      this.canvas.style.touchAction = this.fitted ? "pan-y" : "none";
      this.draw();
      this.told.onChange(this.scale);
    }

    draw() {
      if (this.pending) return;
      this.pending = requestAnimationFrame(() => {
        this.pending = 0;
        const context = this.canvas.getContext("2d");
        context.setTransform(1, 0, 0, 1, 0, 0);
        context.clearRect(0, 0, this.canvas.width, this.canvas.height);
        if (!this.layers) return;
        const dense = devicePixelRatio || 1;
        const shown = { ...this.shown, unit: dense };
        paint(context, this.layers, shown, this.scale * dense, this.left * dense, this.top * dense);
        if (this.ruler) this.drawRuler(context, dense);
      });
    }

    drawRuler(context, dense) {
      const { from, to } = this.ruler;
      const place = ([x, y]) => [(x * this.scale + this.left) * dense, (y * this.scale + this.top) * dense];
      const [a, b] = [place(from), place(to)];
      context.setTransform(1, 0, 0, 1, 0, 0);
      for (const [width, style] of [[5, "rgb(0 0 0 / 65%)"], [2.2, "#ffd84d"]]) {
        context.lineWidth = width * dense;
        context.strokeStyle = style;
        context.beginPath();
        context.moveTo(...a);
        context.lineTo(...b);
        const angle = Math.atan2(b[1] - a[1], b[0] - a[0]) + Math.PI / 2;
        const [dx, dy] = [9 * dense * Math.cos(angle), 9 * dense * Math.sin(angle)];
        for (const [x, y] of [a, b]) {
          context.moveTo(x - dx, y - dy);
          context.lineTo(x + dx, y + dy);
        }
        context.stroke();
      }
    }

    /** From a pointer to the picture's pixels. */
    inPicture(event) {
      const box = this.canvas.getBoundingClientRect();
      return [(event.clientX - box.left - this.left) / this.scale, (event.clientY - box.top - this.top) / this.scale];
    }

    down(event) {
      if (!this.layers) return;
      this.canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
      if (this.measuring && this.pointers.size === 1) {
        const at = this.inPicture(event);
        this.ruler = { from: at, to: at };
      } else this.canvas.classList.add("moving");
    }

    move(event) {
      const before = this.pointers.get(event.pointerId);
      if (!before) return;
      const now = [event.clientX, event.clientY];
      if (this.measuring) {
        if (this.ruler) this.ruler.to = this.inPicture(event);
        this.draw();
      } else if (this.pointers.size === 2) {
        const [other] = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
        const apart = (at) => Math.max(10, Math.hypot(at[0] - other[0], at[1] - other[1]));
        const box = this.canvas.getBoundingClientRect();
        this.pan((now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
        this.zoom(apart(now) / apart(before), (now[0] + other[0]) / 2 - box.left, (now[1] + other[1]) / 2 - box.top);
      } else if (event.pointerType !== "touch" || !this.fitted) {
        this.pan(now[0] - before[0], now[1] - before[1]);
      }
      this.pointers.set(event.pointerId, now);
    }

    up(event) {
      if (!this.pointers.delete(event.pointerId)) return;
      this.canvas.classList.remove("moving");
      if (this.measuring && this.ruler) {
        const { from, to } = this.ruler;
        if (Math.hypot(to[0] - from[0], to[1] - from[1]) >= 2) this.told.onLine(from, to);
      }
    }

    wheel(event) {
      if (!this.layers) return;
      event.preventDefault();
      const box = this.canvas.getBoundingClientRect();
      const lines = event.deltaMode === 1 ? 20 : 1;
      this.zoom(Math.exp(-0.0016 * lines * event.deltaY), event.clientX - box.left, event.clientY - box.top);
    }
  }

  hymunet.view = { View, paint, tinted, css };
})();
