// The engine of the exported folder: ONNX Runtime Web runs the model in this browser.
//
// Everything comes as script files (runtime.js, model.js), because a page that is opened by a
// double-click may load scripts beside it and fetch nothing. The runtime lives in a worker, so that
// the page answers while it computes.
(() => {
  "use strict";
  const hymunet = (globalThis.hymunet ??= {});
  const { masks, pictures } = hymunet;

  /** gzip in base64 -> bytes. */
  async function unpacked(text) {
    const stream = new Blob([pictures.bytes(text)]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  /** Runs in the worker, where `ort` is: one message in, one out, in the order in which they came. */
  function work() {
    /* global ort */
    let session = null;
    let last = Promise.resolve();
    const handle = async ({ id, model, wasm, loader, image, shape }) => {
      try {
        if (model) {
          // a blob that the page made would not be the worker's to load where pages have no origin
          const mjs = URL.createObjectURL(new Blob([loader], { type: "text/javascript" }));
          ort.env.wasm.numThreads = 1; // threads need headers that plain servers do not send
          ort.env.wasm.wasmBinary = wasm.buffer;
          ort.env.wasm.wasmPaths = { mjs };
          session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
          postMessage({ id });
          return;
        }
        const out = await session.run({ image: new ort.Tensor("uint8", image, shape) });
        const [probability, mask] = [out.probability.data, out.mask.data];
        postMessage({ id, probability, mask, structures: out.probability.dims[1] }, [probability.buffer, mask.buffer]);
      } catch (error) {
        postMessage({ id, error: String(error?.message || error) });
      }
    };
    onmessage = (event) => (last = last.then(() => handle(event.data)));
  }

  let worker = null;
  let count = 0;
  const waiting = new Map();

  function ask(message, transfer = []) {
    return new Promise((resolve, reject) => {
      const id = ++count;
      waiting.set(id, { resolve, reject });
      worker.postMessage({ id, ...message }, transfer);
    });
  }

  const SERVE =
    "this browser does not run it here; serve the folder and open that address instead: " +
    "python -m http.server --directory FOLDER, then http://localhost:8000";

  async function start() {
    const { model, runtime } = hymunet;
    if (!model || !runtime) {
      throw new Error("model.js or runtime.js is missing beside index.html: copy the whole folder, or export it again");
    }
    if (!globalThis.DecompressionStream || !globalThis.OffscreenCanvas || !globalThis.WebAssembly) {
      throw new Error("this browser is too old to run the model; use a current Chrome, Edge, Firefox or Safari");
    }
    const source = new Blob([runtime.script, "\n;(", work.toString(), ")();"], { type: "text/javascript" });
    try {
      worker = new Worker(URL.createObjectURL(source));
    } catch {
      throw new Error(SERVE);
    }
    worker.onmessage = ({ data }) => {
      const { resolve, reject } = waiting.get(data.id);
      waiting.delete(data.id);
      if (data.error) reject(new Error(data.error));
      else resolve(data);
    };
    worker.onerror = (event) => {
      event.preventDefault();
      for (const { reject } of waiting.values()) reject(new Error(SERVE));
      waiting.clear();
    };
    const [onnx, wasm] = await Promise.all([unpacked(model.onnx), unpacked(runtime.wasm)]);
    model.onnx = runtime.wasm = ""; // the text is twice the size of what it held
    try {
      await ask({ model: onnx, wasm, loader: runtime.loader }, [onnx.buffer, wasm.buffer]);
    } catch (error) {
      throw new Error(`the model cannot be started: ${error.message}`);
    }
    return model.info;
  }

  let started = null;

  hymunet.engine = {
    place: "browser",
    formats: "PNG or JPEG",

    /** @returns {Promise<object>}  name, classes, threshold, activation, label_values, licence, ... */
    info: () => (started ??= start()),

    /** @param {File} file  a picture that browsers read */
    async segment(file) {
      const info = await this.info();
      const bitmap = await pictures.decode(file);
      const { width, height } = bitmap;
      const channels = info.in_channels;
      const image = pictures.pixels(bitmap, channels);
      const found = await ask({ image, shape: [1, height, width, channels] }, [image.buffer]);
      const size = width * height;
      const probability = Array.from({ length: found.structures }, (_, k) =>
        found.probability.subarray(k * size, (k + 1) * size),
      );
      const index = new Uint8Array(256);
      info.label_values.forEach((value, k) => (index[value] = k));
      const raw = found.mask.map((value) => index[value]);
      const mask = masks.postprocess(raw, width, height, info.classes, info.nested, info.postprocess);
      return { width, height, probability, mask, spacing: null, bitmap };
    },
  };
})();
