/// <reference types="vitest/config" />
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { brotliCompressSync, gzipSync } from "node:zlib";
import { defineConfig, type Plugin } from "vite";

const OUT = "../dist";
const COMPRESSED = /\.(js|css|html|svg|json)$/;

/** Writes `.gz` and `.br` beside each file, so that the balancer compresses nothing, and says what a first visit loads. */
function compressed(): Plugin {
  return {
    name: "paddler-compressed",
    apply: "build",
    closeBundle() {
      const sizes: [string, number][] = [];
      for (const entry of readdirSync(OUT, { recursive: true, withFileTypes: true })) {
        const path = join(entry.parentPath, entry.name);
        if (!entry.isFile() || !COMPRESSED.test(entry.name)) continue;
        const plain = readFileSync(path);
        const gzipped = gzipSync(plain, { level: 9 });
        sizes.push([entry.name, gzipped.length]);
        if (plain.length < 1024) continue;
        writeFileSync(`${path}.gz`, gzipped);
        writeFileSync(`${path}.br`, brotliCompressSync(plain));
      }
      const total = sizes.reduce((sum, [, size]) => sum + size, 0);
      const html = readFileSync(join(OUT, "index.html"), "utf8"); // it names its script, its style and what they import
      const first = sizes.filter(([name]) => name === "index.html" || html.includes(`/${name}"`)).reduce((sum, [, size]) => sum + size, 0);
      console.log(`gzip: ${(first / 1024).toFixed(1)} KiB on the first visit before a page, ${(total / 1024).toFixed(1)} KiB in all`);
    },
  };
}

const target = process.env.PANEL_TARGET ?? "http://127.0.0.1:8062";

export default defineConfig({
  base: "./",
  plugins: [compressed()],
  build: {
    outDir: OUT,
    emptyOutDir: true,
    target: "es2022",
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0, // a data: URL of a script or a font would need a weaker content security policy
    reportCompressedSize: true,
    rollupOptions: {
      output: {
        // Pages are all called index.tsx; their folder is what tells them apart.
        chunkFileNames: (chunk) => {
          const page = /\/pages\/([^/]+)\/index\.tsx$/.exec(chunk.facadeModuleId ?? "");
          return page ? `assets/page-${page[1]}-[hash].js` : "assets/[name]-[hash].js";
        },
      },
    },
  },
  server: { proxy: Object.fromEntries(["/panel", "/api", "/v1", "/metrics"].map((path) => [path, target])) },
  test: {
    environment: "jsdom",
    include: ["src/**/*.test.{ts,tsx}"],
    restoreMocks: true,
  },
});
