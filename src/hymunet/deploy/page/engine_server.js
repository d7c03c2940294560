// The engine of the page that `hymunet serve` serves: pictures go to this server and nowhere else.
(() => {
  "use strict";
  const hymunet = (globalThis.hymunet ??= {});
  const { masks, pictures } = hymunet;

  // beside the folder of the page, below whatever address a proxy gives both
  const API = new URL("../v1/", document.currentScript.src);
  let token = ""; // kept as long as the page is open, and nowhere else

  /** The server's answer; what went wrong is an error in its own words where it has any. */
  async function ask(path, options = {}) {
    let response;
    try {
      const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
      response = await fetch(new URL(path, API), { ...options, headers });
      if (response.status === 401) {
        const given = prompt("This server asks for a token (that of hymunet serve --token).");
        if (given) {
          token = given.trim();
          return ask(path, options);
        }
      }
    } catch {
      throw new Error("the server does not answer; look whether `hymunet serve` is still running, then try again");
    }
    let body = null;
    try {
      body = await response.json();
    } catch {
      // not JSON: a proxy in between, or an answer cut short
    }
    if (response.ok && body) return body;
    throw new Error(
      body?.error?.message ||
        `the server answered ${response.status} ${response.statusText}; try again, and look into its log if it stays so`,
    );
  }

  const png = (text) => pictures.grey(new Blob([pictures.bytes(text)], { type: "image/png" }));
  const TYPES = { dcm: "application/dicom", tif: "image/tiff", tiff: "image/tiff", gz: "application/gzip" };

  let about = null;

  hymunet.engine = {
    place: "server",
    formats: "PNG, JPEG, TIFF or DICOM",

    /** @returns {Promise<object>}  name, classes, threshold, activation, label_values, licence, ... */
    async info() {
      if (about) return about;
      const all = await ask("models");
      const model = (all.models || all)[0];
      if (!model) throw new Error("the server has no model; start it with one: hymunet serve MODEL");
      const classes = model.classes || ["foreground"];
      about = {
        activation: "sigmoid",
        nested: model.activation !== "softmax",
        label_values: classes.length === 1 ? [0, 255] : [0, ...classes.map((_, k) => k + 1)],
        postprocess: {},
        ...Object.fromEntries(Object.entries(model).filter(([, value]) => value !== null)),
        classes,
      };
      return about;
    },

    /** @param {File} file  any format that the server reads */
    async segment(file) {
      const info = await this.info();
      const suffix = file.name.split(".").pop().toLowerCase();
      const result = await ask("segment?include=mask,probability", {
        method: "POST",
        headers: { "Content-Type": file.type || TYPES[suffix] || "application/octet-stream" },
        body: file,
      });
      if (result.mask_nifti) {
        throw new Error(
          `${file.name} is a volume, and this page shows pictures; for volumes: hymunet predict ${file.name} --model MODEL --output masks/`,
        );
      }
      const { width, height, spacing_mm } = result.image;
      const mask = await png(result.mask_png);
      const probability = await Promise.all((result.probability_png || []).map(async (one) => (await png(one)).values));
      return {
        width,
        height,
        probability,
        mask: masks.classIndices(mask.values, info.label_values),
        spacing: spacing_mm,
        measurements: result.measurements,
      };
    },
  };
})();
