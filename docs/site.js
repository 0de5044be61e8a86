// The theme's search is a dialog without a name.
document.querySelector("[data-md-component=search]")?.setAttribute("aria-label", "Search");

// A table that is wider than the screen scrolls: by keyboard, too.
addEventListener("load", () => {
  for (const wide of document.querySelectorAll(".md-typeset__scrollwrap")) wide.tabIndex = 0;
});
