"""The JavaScript runtimes: WebAssembly in Node.js and in Chromium, and Node's native binding.

`job.mjs` runs a job folder in all of them; `in_node.mjs` and `page.html` give it files and a clock.
"""
