// What the pages share: their words in two languages, elements, markdown. A page has `WORDS`, by language.
const $ = id => document.getElementById(id);
const remembered = name => { try { return localStorage.getItem("headwater." + name); } catch { return null; } };
const remember = (name, value) => { try { localStorage.setItem("headwater." + name, value); } catch { /* private windows have none */ } };
let language = remembered("language") || (navigator.language.startsWith("zh") ? "zh" : "en");
const t = name => WORDS[language][name];

// Enter that ends the input of Chinese isn't meant for the page; Safari tells so by a number alone (229).
const composing = event => event.isComposing || event.keyCode === 229;

// An element with attributes and children; texts become text nodes, never HTML.
function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter(child => child !== null));
  return made;
}

// Markdown --------------------------------------------------------------------------------------------------------
// Lengths are bounded, so that no text makes matching slow. Links lead to the web alone; pictures aren't loaded.
const INLINE = /(`{1,3})([^`]{1,2000})\1|\*\*([^*]{1,2000})\*\*|\*([^*\s][^*]{0,2000})\*|(!?)\[([^\][]{0,500})\]\(([^()\s]{1,2000})\)/g;
function inline(text) {
  const found = [];
  let past = 0;
  for (const match of text.matchAll(INLINE)) {
    found.push(text.slice(past, match.index));
    past = match.index + match[0].length;
    if (match[1]) found.push(el("code", {}, match[2]));
    else if (match[3]) found.push(el("strong", {}, ...inline(match[3])));
    else if (match[4]) found.push(el("em", {}, match[4]));
    else {
      const label = match[5] ? `${t("picture")}: ${match[6]}` : match[6];
      if (/^https?:\/\//i.test(match[7])) found.push(el("a", { href: match[7], target: "_blank", rel: "noopener noreferrer nofollow" }, label || match[7]));
      else found.push(match[0]);
    }
  }
  found.push(text.slice(past));
  return found.filter(part => part !== "");
}
function codeBlock(language, text) {
  const copy = el("button", { class: "quiet", type: "button", click: () => copied(copy, text) }, t("copy"));
  return el("div", { class: "code" }, el("div", {}, el("span", {}, language || t("code")), copy), el("pre", { tabindex: "0" }, el("code", {}, text)));
}
const MARKER = /^(\s{0,12})(?:[-*+]|(\d{1,9})[.)])\s+(.*)$/;
function markdown(text) {
  const lines = text.split("\n"), blocks = [];
  let at = 0;
  const cells = line => line.trim().replace(/^\||\|$/g, "").split("|").map(cell => cell.trim());
  const special = line => /^\s{0,3}(```|~~~|#{1,6}\s|>)/.test(line) || MARKER.test(line) || /^\s*$/.test(line) || /^\s{0,3}([-*_])(\s*\1){2,}\s*$/.test(line);
  while (at < lines.length) {
    const line = lines[at];
    let match;
    if (/^\s*$/.test(line)) at++;
    else if ((match = /^\s{0,3}(```+|~~~+)\s*([\w+#.-]{0,30})/.exec(line))) {
      const body = [];
      for (at++; at < lines.length && !lines[at].trim().startsWith(match[1]); at++) body.push(lines[at]);
      at++;
      blocks.push(codeBlock(match[2], body.join("\n")));
    } else if (/^\s{0,3}([-*_])(\s*\1){2,}\s*$/.test(line)) { blocks.push(el("hr")); at++; }
    else if ((match = /^\s{0,3}(#{1,6})\s+(.*)$/.exec(line))) { blocks.push(el("h" + Math.min(6, match[1].length + 2), {}, ...inline(match[2]))); at++; }
    else if (/^\s{0,3}>/.test(line)) {
      const body = [];
      for (; at < lines.length && /^\s{0,3}>/.test(lines[at]); at++) body.push(lines[at].replace(/^\s{0,3}>\s?/, ""));
      blocks.push(el("blockquote", {}, el("p", {}, ...inline(body.join("\n")))));
    } else if (MARKER.test(line)) {
      const first = MARKER.exec(line), list = el(first[2] ? "ol" : "ul", first[2] ? { start: first[2] } : {});
      for (; at < lines.length && (match = MARKER.exec(lines[at])); at++) {
        const item = [match[3]];
        while (at + 1 < lines.length && /^\s{2,}\S/.test(lines[at + 1]) && !MARKER.test(lines[at + 1])) item.push(lines[++at].trim());
        const made = el("li", {}, ...inline(item.join("\n")));
        if (match[1].length >= 2 && list.lastElementChild) {
          const last = list.lastElementChild, tag = match[2] ? "OL" : "UL";
          const inner = last.lastElementChild && last.lastElementChild.tagName === tag ? last.lastElementChild : last.appendChild(el(tag));
          inner.append(made);
        } else list.append(made);
      }
      blocks.push(list);
    } else if (line.includes("|") && /^\s*\|?\s*:?-{2,}/.test(lines[at + 1] || "") && /^[\s|:-]+$/.test(lines[at + 1])) {
      const head = el("tr", {}, ...cells(line).map(cell => el("th", {}, ...inline(cell)))), body = [];
      for (at += 2; at < lines.length && lines[at].includes("|"); at++) body.push(el("tr", {}, ...cells(lines[at]).map(cell => el("td", {}, ...inline(cell)))));
      blocks.push(el("div", { class: "scroll" }, el("table", {}, el("thead", {}, head), el("tbody", {}, ...body))));
    } else {
      const body = [line];
      for (at++; at < lines.length && !special(lines[at]); at++) body.push(lines[at]);
      blocks.push(el("p", {}, ...inline(body.join("\n"))));
    }
  }
  return blocks;
}
async function copied(button, text) {
  try { await navigator.clipboard.writeText(text); button.textContent = t("copied"); } catch { /* not allowed here */ }
}
