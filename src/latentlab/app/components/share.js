// Share: copies the page's address, with what the address does not say yet in one more parameter.
LL.views.share = class {
  constructor(root, host) {
    this.root = root;
    this.host = host;
    this.serial = 0;
    this.build();
    this.update(host);
  }

  build() {
    const { el } = LL;
    this.button = LL.copyButton("link", "Copy link", "", () => this.link());
    this.error = el("p", { class: "ll-note", role: "status", hidden: true });
    this.text = el("input", { class: "ll-value ll-link", readonly: true, hidden: true, "aria-label": "link" });
    this.text.addEventListener("focus", () => this.text.select());
    this.root.replaceChildren(el("div", { class: "ll-share" }, this.button, this.text, this.error));
  }

  update(host) {
    this.host = host;
    const { answer, plain } = host.data;
    const title = plain ? "Copy link: an address with this page's choices"
      : "Copy link: an address that opens this very picture, with its code, edits, locks and all choices of the page";
    this.button.title = title;
    this.button.setAttribute("aria-label", title);
    if (answer && answer.serial === this.serial) this.answered?.(answer);
  }

  // What other parts of the page hold back until a gesture has surely ended is said first.
  async link() {
    this.say("");
    if (this.host.data.plain) return this.show(this.address());
    window.dispatchEvent(new Event("latentlab-settle"));
    await new Promise((next) => setTimeout(next, 220));
    const answer = await new Promise((resolve) => {
      this.serial += 1;
      const late = setTimeout(() => resolve({ error: "The server did not answer; try again." }), 15000);
      this.answered = (said) => { clearTimeout(late); this.answered = null; resolve(said); };
      this.host.trigger("asked", this.serial);
    });
    if (answer.error) { this.say(answer.error); return null; }
    return this.show(this.address(answer.text));
  }

  address(text) {
    const { parameter, run } = this.host.data, choices = new URLSearchParams(location.search);
    if (run) choices.set("run", run);
    if (text) choices.set(parameter, text); else choices.delete(parameter);
    return `${location.origin}${location.pathname}?${choices}`;
  }

  // Where the clipboard can't be reached, the link is there to be copied by hand.
  show(link) {
    this.text.value = link;
    setTimeout(() => { this.text.hidden = this.button.textContent !== "Not allowed"; if (!this.text.hidden) this.text.focus(); }, 50);
    return link;
  }

  say(sentence) {
    this.error.textContent = sentence;
    this.error.hidden = !sentence;
  }

  destroy() {}
};
