//! The report of `atoll bench run` as text: a table for people, `name<TAB>value` lines for programs.

use std::collections::BTreeMap;

use atoll_bench::{
    Arrivals, Configuration, Distribution, FreshAfter, KindsReport, Latency, Line, NodeUse, Nodes,
    Operations, Report, Sessions, Staleness, Violations,
};

use crate::output::{self, Format};

/// The report for people: what was run, the table, then one sentence per finding.
pub fn table(report: &Report) {
    let (run, cluster) = (&report.configuration, &report.cluster);
    anstream::println!(
        "\x1b[1m{} nodes\x1b[0m   n={} r={} w={}{} dw={} {}   {:.0} % reads   {} keys of {} bytes, {}",
        cluster.nodes,
        run.n,
        run.r,
        run.w,
        if run.sloppy && run.pr + run.pw > 0 {
            format!(" pr={} pw={}", run.pr, run.pw)
        } else {
            String::new()
        },
        run.dw,
        if run.sloppy { "sloppy" } else { "strict" },
        run.read_ratio * 100.0,
        grouped(run.keys.into()),
        grouped(run.value_bytes as u64),
        match run.distribution {
            Distribution::Uniform => "all equally popular",
            Distribution::Zipf => "popular by Zipf's law",
        },
    );
    anstream::println!("{}", form(run));
    anstream::println!(
        "{} connection{} per node, measured for {:.1} s{}",
        run.connections,
        if run.connections == 1 { "" } else { "s" },
        report.seconds,
        if report.interrupted { ", then interrupted" } else { "" },
    );
    anstream::println!("{}\n", machine(report));
    let headings = ["", "ops/s", "count", "failed", "p50 ms", "p90", "p99", "p99.9", "max"];
    let mut rows = Vec::new();
    if run.read_ratio > 0.0 {
        rows.extend(operations("reads", &report.reads));
    }
    if run.read_ratio < 1.0 {
        rows.extend(operations("writes", &report.writes));
    }
    output::rows(Format::Table, &headings, &rows);
    match run.rate {
        None => anstream::println!("\n{} operations per second", grouped_rate(report.ops_per_s)),
        Some(rate) => anstream::println!(
            "\n{} operations per second, of {} that arrived",
            grouped_rate(report.ops_per_s),
            grouped(rate.into())
        ),
    }
    for finding in findings(report) {
        anstream::println!("{finding}");
    }
    let ages = ages(&report.staleness);
    if !ages.is_empty() {
        let headings = ["sent after the last ack", "reads", "stale", "fresh %"];
        anstream::println!();
        output::rows(Format::Table, &headings, &ages);
    }
}

/// What kind of load it was, and what its latencies leave out.
fn form(run: &Configuration) -> String {
    match (run.rate.zip(run.arrivals), run.concurrency) {
        (Some((rate, arrivals)), _) => format!(
            "open loop, {} operations per second {}: latency counts from the moment one should be sent",
            grouped(rate.into()),
            match arrivals {
                Arrivals::Poisson => "in Poisson arrivals",
                Arrivals::Uniform => "at equal distances",
            },
        ),
        (None, concurrency) => format!(
            "closed loop, {} at a time{}: latency excludes waiting to be sent; use --rate N to include it",
            grouped(concurrency.unwrap_or_default().into()),
            if run.concurrency_is_default { " (nobody chose; -c changes it)" } else { "" },
        ),
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

fn operations(name: &str, operations: &Operations) -> Vec<Vec<String>> {
    let mut row = vec![
        name.to_owned(),
        grouped_rate(operations.per_s),
        grouped(operations.count),
        grouped(operations.failed),
    ];
    row.extend(percentiles(operations.latency_ms));
    let mut rows = vec![row];
    if operations.service_ms.is_some() {
        let mut row = vec!["  once sent".to_owned(), String::new(), String::new(), String::new()];
        row.extend(percentiles(operations.service_ms));
        rows.push(row);
    }
    rows
}

fn percentiles(latency: Option<Latency>) -> [String; 5] {
    match latency {
        None => [(); 5].map(|()| "-".to_owned()),
        Some(Latency { p50, p90, p99, p99_9, max, mean: _ }) => {
            [p50, p90, p99, p99_9, max].map(milliseconds)
        }
    }
}

fn findings(report: &Report) -> Vec<String> {
    let mut said = Vec::new();
    if let Some(schedule) = &report.schedule {
        said.push(format!(
            "schedule: sent {} ms late at p99, at most {} outstanding, {} of {} arrivals skipped",
            schedule.slip_ms.map_or("-".to_owned(), |slip| milliseconds(slip.p99)),
            grouped(schedule.outstanding_max as u64),
            grouped(schedule.skipped),
            grouped(schedule.arrivals),
        ));
        said.extend(schedule.judgements.iter().map(|it| note(it)));
    }
    if report.reads.count > 0 {
        said.push(staleness(&report.staleness));
        said.extend(sessions(&report.sessions));
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
    said.extend(nodes(&report.nodes));
    let generator = &report.load_generator;
    said.push(match (generator.cpu_cores, generator.cpu_us_per_op) {
        (Some(cores), Some(micros)) => {
            format!("load generator: {cores:.2} cores, {micros:.0} µs CPU per operation")
        }
        (Some(cores), None) => format!("load generator: {cores:.2} cores"),
        (None, _) => "load generator: n/a cores".to_owned(),
    });
    said.extend(generator.judgement.as_ref().map(|it| note(it)));
    said
}

fn note(it: &str) -> String {
    format!("\x1b[1;33mnote\x1b[0m: {it}")
}

/// What single clients would have met. Nothing if no read was at stake, as when nothing is read twice.
fn sessions(found: &Sessions) -> Option<String> {
    let of = |violations: Violations| match violations.at_stake {
        0 => "not at stake".to_owned(),
        at_stake => format!(
            "violated by {} of {} reads ({} %)",
            grouped(violations.violated),
            grouped(at_stake),
            percent(violations.violated as f64 / at_stake as f64),
        ),
    };
    let Sessions { count, keys_remembered: _, read_your_writes, monotonic_reads } = *found;
    (read_your_writes.at_stake + monotonic_reads.at_stake > 0).then(|| {
        format!(
            "{} sessions: read your writes {}, monotonic reads {}",
            grouped(count.into()),
            of(read_your_writes),
            of(monotonic_reads),
        )
    })
}

/// What the load cost the nodes; then who did not tell.
fn nodes(used: &Nodes) -> Vec<String> {
    let mut said = Vec::new();
    if let Some(all) = used.cpu_us_per_op {
        let each: Vec<String> = (used.each.iter())
            .filter_map(|node| Some(format!("{} {:.0}", node.node, node.cpu_us_per_op?)))
            .collect();
        said.push(format!("nodes: {all:.0} µs CPU per operation ({})", each.join(", ")));
    }
    let sum = |count: fn(&NodeUse) -> u64| used.each.iter().map(count).sum::<u64>();
    let hints: i64 = used.each.iter().map(|node| node.hints).sum();
    let done: Vec<String> = [
        (sum(|node| node.hedges), "hedges"),
        (sum(|node| node.repaired), "read repairs"),
        (hints.unsigned_abs(), if hints < 0 { "hints fewer" } else { "hints more" }),
        (sum(|node| node.hints_refused), "hints refused"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{} {what}", grouped(count)))
    .collect();
    if !done.is_empty() {
        said.push(format!("nodes: {}", done.join(", ")));
    }
    said.extend(used.silent.iter().map(|(node, reason)| {
        note(&format!(
            "{node} did not tell what it used and is in no figure of the nodes: {reason}"
        ))
    }));
    said
}

/// P(fresh | time since the newest ack) in four rows per decade; behind the last stale read everything is one row.
/// Nothing if no read was stale.
fn ages(found: &Staleness) -> Vec<Vec<String>> {
    let mut buckets = FreshAfter::in_pairs(&found.by_time_since_ack);
    let Some(last_stale) = buckets.iter().rposition(|bucket| bucket.fresh < bucket.reads) else {
        return Vec::new();
    };
    let fresh_again = buckets.split_off(last_stale + 1);
    buckets.extend(fresh_again.into_iter().reduce(|first, next| FreshAfter {
        t_to_us: None,
        reads: first.reads + next.reads,
        fresh: first.fresh + next.fresh,
        ..first
    }));
    buckets.into_iter().map(|bucket| age(&bucket)).collect()
}

fn age(bucket: &FreshAfter) -> Vec<String> {
    let FreshAfter { t_from_us, t_to_us, reads, fresh } = *bucket;
    let span = match t_to_us {
        Some(to) => format!("{} to {}", time(t_from_us), time(to)),
        None => format!("{} and more", time(t_from_us)),
    };
    vec![span, grouped(reads), grouped(reads - fresh), fresh_percent(reads, fresh)]
}

/// Never rounded up to 100.
fn fresh_percent(reads: u64, fresh: u64) -> String {
    match fresh as f64 / reads as f64 * 100.0 {
        percent if fresh == reads || percent < 99.9 => format!("{percent:.2}"),
        percent => format!("{:.4}", (percent * 1e4).floor() / 1e4),
    }
}

/// Microseconds in the unit and with the digits that one reads.
fn time(micros: u64) -> String {
    let digits =
        |value: f64| if value < 10.0 { format!("{value:.1}") } else { format!("{value:.0}") };
    match micros {
        0 => "0".to_owned(),
        1..1000 => format!("{micros} µs"),
        1000..1_000_000 => format!("{} ms", digits(micros as f64 / 1e3)),
        _ => format!("{} s", digits(micros as f64 / 1e6)),
    }
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
    if let (0, Some(first)) = (found.stale, found.by_time_since_ack.first()) {
        said += &format!(
            ", the soonest of them sent within {} of the ack",
            first.t_to_us.map_or("ever".to_owned(), time)
        );
    }
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

/// What values that merge cost.
pub fn kinds(report: &KindsReport, format: Format) {
    for (lines, unit) in [(&report.changes, "CHANGES/S"), (&report.reads, "KEYS/S")] {
        let row = |line: &Line| {
            let ms = |micros: u64| format!("{:.2}", micros as f64 / 1000.0);
            vec![
                line.what.to_owned(),
                format!("{:.0}", line.per_second),
                format!("{:.0} to {:.0}", line.range.0, line.range.1),
                format!("{:.0} %", 100.0 * line.share),
                ms(line.p50_micros),
                ms(line.p99_micros),
                line.failed.to_string(),
            ]
        };
        let rows: Vec<Vec<String>> = lines.iter().map(row).collect();
        output::rows(format, &["", unit, "SLICES", "SHARE", "P50 MS", "P99", "FAILED"], &rows);
    }
}

/// The report as `name<TAB>value` lines; what was not measured is `n/a`.
pub fn plain(report: &Report) {
    let number = |value: Option<f64>| value.map_or("n/a".to_owned(), |value| value.to_string());
    let mut rows = vec![
        ("load".to_owned(), report.configuration.load.to_owned()),
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
        if let Some(service) = operations.service_ms {
            rows.extend([
                (format!("{name}.service_p50_ms"), service.p50.to_string()),
                (format!("{name}.service_p99_ms"), service.p99.to_string()),
                (format!("{name}.service_p99_9_ms"), service.p99_9.to_string()),
            ]);
        }
    }
    if let Some(schedule) = &report.schedule {
        rows.extend([
            ("schedule.rate".to_owned(), number(report.configuration.rate.map(f64::from))),
            ("schedule.arrivals".to_owned(), schedule.arrivals.to_string()),
            ("schedule.skipped".to_owned(), schedule.skipped.to_string()),
            ("schedule.outstanding_max".to_owned(), schedule.outstanding_max.to_string()),
            ("schedule.slip_p99_ms".to_owned(), number(schedule.slip_ms.map(|slip| slip.p99))),
        ]);
    }
    let sessions = &report.sessions;
    for (name, found) in [
        ("read_your_writes", sessions.read_your_writes),
        ("monotonic_reads", sessions.monotonic_reads),
    ] {
        rows.extend([
            (format!("{name}.at_stake"), found.at_stake.to_string()),
            (format!("{name}.violated"), found.violated.to_string()),
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
        ("nodes.cpu_us_per_op".to_owned(), number(report.nodes.cpu_us_per_op)),
        ("nodes.silent".to_owned(), report.nodes.silent.len().to_string()),
        ("load_generator.cpu_cores".to_owned(), number(report.load_generator.cpu_cores)),
        ("load_generator.cpu_us_per_op".to_owned(), number(report.load_generator.cpu_us_per_op)),
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
        assert_eq!([0, 178, 1778, 17_783].map(time), ["0", "178 µs", "1.8 ms", "18 ms"]);
        assert_eq!([1_000_000, 100_000_000].map(time), ["1.0 s", "100 s"]);
        let shares = [(4, 1), (10, 10), (1_000_000, 999_999), (100_000_000, 99_999_999)];
        let said = shares.map(|(reads, fresh)| fresh_percent(reads, fresh));
        assert_eq!(said, ["25.00", "100.00", "99.9999", "99.9999"]);
    }
}
