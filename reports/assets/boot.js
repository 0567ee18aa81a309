"use strict";
/* The one script that the policy names: it unpacks the page's code, runs it, and leaves the rest to it. */

const $ = (id) => document.getElementById(id);
const root = document.documentElement;
const LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%.()*+-;,=/?@^_:{|}~";

root.classList.add("on");
try {
  const kept = localStorage.getItem("geomkit-theme");
  if (kept === "light" || kept === "dark") root.dataset.theme = kept;
} catch {
  /* a browser may keep nothing for local files */
}

/** base 85 -> bytes: five letters are four bytes. */
function dense(text) {
  const digit = new Uint8Array(128).fill(84);
  for (let i = 0; i < 85; i += 1) digit[LETTERS.charCodeAt(i)] = i;
  const missing = (5 - (text.length % 5)) % 5;
  const raw = new DataView(new ArrayBuffer(((text.length + missing) / 5) * 4));
  for (let at = 0, to = 0; at < text.length; at += 5, to += 4) {
    let value = 0;
    for (let i = at; i < at + 5; i += 1) value = value * 85 + (i < text.length ? digit[text.charCodeAt(i)] : 84);
    raw.setUint32(to, value);
  }
  return new Uint8Array(raw.buffer, 0, raw.byteLength - missing);
}

/** What a data script holds, unpacked: a response, to be read as text or as bytes. */
function unpacked(id) {
  const packed = new Blob([dense($(id).textContent)]).stream();
  return new Response(packed.pipeThrough(new DecompressionStream("gzip")));
}

const unpack = (id) => unpacked(id).text();

/** Run code that the page itself holds. */
function run(source) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
    script.onload = () => { URL.revokeObjectURL(script.src); resolve(); };
    script.onerror = () => reject(new Error("code of this page did not load"));
    document.head.append(script);
  });
}

addEventListener("DOMContentLoaded", async () => {
  try {
    await run(await unpack("code"));
    await start();
  } catch (error) {
    root.classList.remove("on"); // as if no script ran: drawings and tables are all there
    $("trouble").textContent = `Figures stay still in this browser (${error.message}).`;
  }
});
