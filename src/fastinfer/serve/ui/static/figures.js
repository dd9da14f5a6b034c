// SPDX-License-Identifier: Apache-2.0
// What happened lately, from counters that only grow: the difference of two overviews, as Prometheus' rate() has it.

export const WINDOW = 5; // seconds

// Linear within its bucket, as Prometheus' histogram_quantile; 0 where nothing was counted.
export function quantile(counts, bounds, q) {
  const rank = q * counts.reduce((a, b) => a + b, 0);
  let below = 0;
  for (let i = 0; i < counts.length; i++) {
    if (counts[i] && below + counts[i] >= rank) {
      if (i === bounds.length) return bounds[i - 1];
      const low = i ? bounds[i - 1] : 0;
      return low + ((bounds[i] - low) * (rank - below)) / counts[i];
    }
    below += counts[i];
  }
  return 0;
}

// A counter that is smaller than before began anew: its version was loaded again.
const grown = (now, then = 0) => (now >= then ? now - then : now);

function difference(now, then) {
  const lists = (name) => (now.histograms[name] ?? []).map((n, i) => grown(n, then?.histograms[name]?.[i]));
  return {
    requests: grown(now.requests, then?.requests), failures: grown(now.failures, then?.failures), rows: grown(now.rows, then?.rows),
    calls: grown(now.calls, then?.calls), waiting: now.queue, request: lists("request"), queue: lists("queue"), batches: lists("rows"),
  };
}

function sum(parts) {
  const lists = (name) => parts.map((p) => p[name]).filter((l) => l.length).reduce((a, b) => (a.length ? a.map((n, i) => n + b[i]) : b), []);
  const total = (name) => parts.reduce((a, p) => a + p[name], 0);
  return {
    requests: total("requests"), failures: total("failures"), rows: total("rows"), calls: total("calls"), waiting: total("waiting"),
    request: lists("request"), queue: lists("queue"), batches: lists("batches"),
  };
}

function shown(d, elapsed, bounds) {
  const at = (counts, q) => quantile(counts, bounds.seconds, q);
  return {
    rate: (d.requests + d.failures) / elapsed, failed: d.failures / elapsed, waiting: d.waiting, rowRate: d.rows / elapsed,
    p50: at(d.request, 0.5), p90: at(d.request, 0.9), p99: at(d.request, 0.99), queue50: at(d.queue, 0.5), queue99: at(d.queue, 0.99),
    batch: d.calls ? d.rows / d.calls : 0, batches: d.batches,
  };
}

export class Recent {
  constructor() {
    this.seen = []; // {at: seconds, versions: Map "model/version" → row}, oldest first
  }

  // Adds an overview; returns Map model → {all, versions: Map version → figures} of the last seconds.
  add(overview, at) {
    const rows = overview.models.flatMap((m) => m.versions.map((v) => [`${m.name}/${v.version}`, v]));
    this.seen.push({ at, versions: new Map(rows) });
    while (this.seen.length > 2 && this.seen[1].at <= at - WINDOW) this.seen.shift();
    const [then, now] = [this.seen[0], this.seen.at(-1)];
    const elapsed = Math.max(now.at - then.at, 1e-3);
    const first = this.seen.length === 1;
    return new Map(overview.models.map((m) => {
      const parts = m.versions.map((v) => difference(v, first ? v : then.versions.get(`${m.name}/${v.version}`)));
      const versions = new Map(m.versions.map((v, i) => [v.version, shown(parts[i], elapsed, overview.bounds)]));
      return [m.name, { all: shown(sum(parts), elapsed, overview.bounds), versions }];
    }));
  }
}
