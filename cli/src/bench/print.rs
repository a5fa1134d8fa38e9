//! The report of `atoll bench run` as text: a table for people, `name<TAB>value` lines for programs.

use std::collections::BTreeMap;

use atoll_bench::{Distribution, Latency, Operations, Report, Staleness};

use crate::output::{self, Format};

/// The report for people: what was run, the table, then one sentence per finding.
pub fn table(report: &Report) {
    let (run, cluster) = (&report.configuration, &report.cluster);
    anstream::println!(
        "\x1b[1m{} nodes\x1b[0m   n={} r={} w={} dw={}   {:.0} % reads   {} keys of {} bytes, {}",
        cluster.nodes,
        run.n,
        run.r,
        run.w,
        run.dw,
        run.read_ratio * 100.0,
        grouped(run.keys.into()),
        grouped(run.value_bytes as u64),
        match run.distribution {
            Distribution::Uniform => "all equally popular",
            Distribution::Zipf => "popular by Zipf's law",
        },
    );
    anstream::println!(
        "closed loop, {} in flight{}, {} connection{} per node, measured for {:.1} s{}",
        run.concurrency,
        if run.concurrency_is_default { " (the default; -c changes it)" } else { "" },
        run.connections,
        if run.connections == 1 { "" } else { "s" },
        report.seconds,
        if report.interrupted { ", then interrupted" } else { "" },
    );
    anstream::println!("{}\n", machine(report));
    let headings = ["", "ops/s", "count", "failed", "p50 ms", "p90", "p99", "p99.9", "max"];
    let mut rows = Vec::new();
    if run.read_ratio > 0.0 {
        rows.push(row("reads", &report.reads));
    }
    if run.read_ratio < 1.0 {
        rows.push(row("writes", &report.writes));
    }
    output::rows(Format::Table, &headings, &rows);
    anstream::println!("\n{} operations per second", grouped_rate(report.ops_per_s));
    for finding in findings(report) {
        anstream::println!("{finding}");
    }
}

fn machine(report: &Report) -> String {
    let machine = &report.machine;
    let known = [
        machine.cores.map(|cores| format!("{cores} cores")),
        machine.processor.clone(),
        machine.memory_bytes.map(|bytes| format!("{:.0} GiB", bytes as f64 / f64::from(1 << 30))),
        Some(format!("{} {}", machine.os, machine.arch)),
    ];
    known.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn row(name: &str, operations: &Operations) -> Vec<String> {
    let mut row = vec![
        name.to_owned(),
        grouped_rate(operations.per_s),
        grouped(operations.count),
        grouped(operations.failed),
    ];
    match operations.latency_ms {
        None => row.extend(std::iter::repeat_n("-".to_owned(), 5)),
        Some(Latency { p50, p90, p99, p99_9, max, mean: _ }) => {
            row.extend([p50, p90, p99, p99_9, max].map(milliseconds));
        }
    }
    row
}

fn findings(report: &Report) -> Vec<String> {
    let mut said = Vec::new();
    if report.reads.count > 0 {
        said.push(staleness(&report.staleness));
    }
    if report.reads_missing > 0 {
        said.push(format!("missing: {} reads found no value", grouped(report.reads_missing)));
    }
    if report.siblings.reads > 0 {
        said.push(format!(
            "siblings: {} reads found several values, {:.2} on average over all that found any, at most {}",
            grouped(report.siblings.reads),
            report.siblings.values_mean.unwrap_or_default(),
            report.siblings.values_max,
        ));
    }
    if report.context_reads > 0 {
        said.push(format!(
            "besides: {} reads by writers that needed a context, counted nowhere above",
            grouped(report.context_reads)
        ));
    }
    for (what, operations) in [("reads", &report.reads), ("writes", &report.writes)] {
        if operations.failed > 0 {
            said.push(format!("failed {what}: {}", list(&operations.errors)));
        }
    }
    if report.writes.failed > 0 {
        said.push(format!("failed writes left behind: {}", list(&report.failed_writes_left)));
    }
    let generator = &report.load_generator;
    said.push(match generator.cpu_cores {
        Some(cores) => format!("load generator: {cores:.2} cores"),
        None => "load generator: n/a cores".to_owned(),
    });
    said.extend(generator.judgement.as_ref().map(|it| format!("\x1b[1;33mnote\x1b[0m: {it}")));
    said
}

fn staleness(found: &Staleness) -> String {
    let Some(share) = found.share else {
        return "staleness: no read could be judged".to_owned();
    };
    let mut said = format!(
        "staleness: {} of {} reads missed an acknowledged write ({} %)",
        grouped(found.stale),
        grouped(found.judged),
        percent(share),
    );
    if let Some(mean) = found.behind_mean {
        said += &format!(", {mean:.2} behind on average, {} at most", found.behind_max);
    }
    if found.behind_at_least {
        said += &format!(" (or more: {} per key are remembered)", found.remembered);
    }
    if !found.exact {
        said += "; there may be more, too many writes were concurrent to remember all";
    }
    if found.unjudged > 0 {
        said += &format!("; {} could not be judged", grouped(found.unjudged));
    }
    said
}

/// The report as `name<TAB>value` lines; what was not measured is `n/a`.
pub fn plain(report: &Report) {
    let number = |value: Option<f64>| value.map_or("n/a".to_owned(), |value| value.to_string());
    let mut rows = vec![
        ("seconds".to_owned(), report.seconds.to_string()),
        ("ops_per_s".to_owned(), report.ops_per_s.to_string()),
    ];
    for (name, operations) in [("reads", &report.reads), ("writes", &report.writes)] {
        let latency = operations.latency_ms;
        rows.extend([
            (format!("{name}.count"), operations.count.to_string()),
            (format!("{name}.per_s"), operations.per_s.to_string()),
            (format!("{name}.failed"), operations.failed.to_string()),
            (format!("{name}.p50_ms"), number(latency.map(|latency| latency.p50))),
            (format!("{name}.p90_ms"), number(latency.map(|latency| latency.p90))),
            (format!("{name}.p99_ms"), number(latency.map(|latency| latency.p99))),
            (format!("{name}.p99_9_ms"), number(latency.map(|latency| latency.p99_9))),
            (format!("{name}.max_ms"), number(latency.map(|latency| latency.max))),
        ]);
    }
    rows.extend([
        ("reads.missing".to_owned(), report.reads_missing.to_string()),
        ("reads.siblings".to_owned(), report.siblings.reads.to_string()),
        ("stale.judged".to_owned(), report.staleness.judged.to_string()),
        ("stale.reads".to_owned(), report.staleness.stale.to_string()),
        ("stale.share".to_owned(), number(report.staleness.share)),
        ("stale.behind_mean".to_owned(), number(report.staleness.behind_mean)),
        ("stale.behind_max".to_owned(), report.staleness.behind_max.to_string()),
        ("load_generator.cpu_cores".to_owned(), number(report.load_generator.cpu_cores)),
    ]);
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(name, value)| vec![name, value]).collect();
    output::rows(Format::Plain, &[], &rows);
}

fn list(counts: &BTreeMap<String, u64>) -> String {
    let said: Vec<String> =
        counts.iter().map(|(name, count)| format!("{name} {}", grouped(*count))).collect();
    said.join(", ")
}

/// As many digits as one reads.
fn milliseconds(value: f64) -> String {
    match value {
        value if value < 10.0 => format!("{value:.2}"),
        value if value < 100.0 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}

/// A share in percent, with the digits that keep a rare thing from looking like nothing.
fn percent(share: f64) -> String {
    match share * 100.0 {
        0.0 => "0".to_owned(),
        percent if percent < 0.1 => format!("{percent:.4}"),
        percent => format!("{percent:.2}"),
    }
}

fn grouped_rate(per_second: f64) -> String {
    if per_second < 100.0 { format!("{per_second:.1}") } else { grouped(per_second.round() as u64) }
}

/// 1234567 as 1,234,567.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_readable() {
        for (number, expected) in
            [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")]
        {
            assert_eq!(grouped(number), expected);
        }
        assert_eq!([0.05, 9.876, 12.34, 123.4].map(milliseconds), ["0.05", "9.88", "12.3", "123"]);
        assert_eq!([0.0, 0.000_012, 0.0123].map(percent), ["0", "0.0012", "1.23"]);
        assert_eq!([12.34, 8123.4].map(grouped_rate), ["12.3", "8,123"]);
    }
}
