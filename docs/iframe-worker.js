// From disk a browser starts no worker, and the theme's search is one: there its script runs in a frame instead.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      this.ready = new Promise((resolve) => {
        frame.addEventListener("load", () => {
          if (frame.contentDocument.scripts.length) return;
          this.inside = frame.contentWindow;
          this.inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
          this.inside.importScripts = () => Promise.resolve(); // of other languages
          const script = frame.contentDocument.createElement("script");
          script.src = url;
          script.onload = resolve;
          frame.contentDocument.body.append(script);
        }, { once: true });
      });
      if (document.body) document.body.append(frame);
      else addEventListener("DOMContentLoaded", () => document.body.append(frame));
    }

    postMessage(data) {
      this.ready.then(() => this.inside.dispatchEvent(new MessageEvent("message", { data })));
    }
  };
}
