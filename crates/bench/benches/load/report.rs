//! Makes report.md from the results in target/bench/.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::plot::{Line, Scale, chart};
use crate::{Outcome, median, results};

const SIZES: [usize; 3] = [1000, 10_000, 100_000];

/// The report, and the folder of its pictures.
struct Report {
    text: String,
    pictures: PathBuf,
}

pub(crate) fn write() -> Outcome<()> {
    let benches = Path::new(env!("CARGO_MANIFEST_DIR")).to_owned();
    let pictures = benches.join("plots");
    fs::create_dir_all(&pictures)?;
    let mut report = Report { text: String::new(), pictures };
    report.head()?;
    report.http()?;
    report.proxy();
    report.library()?;
    report.sizes()?;
    report.spread()?;
    report.storm()?;
    report.build()?;
    report.soak()?;
    Ok(fs::write(benches.join("report.md"), report.text)?)
}

/// Returns the result of a part, and a line that says how it was made.
fn saved(name: &str) -> Option<(Value, String)> {
    let text = fs::read_to_string(results().join(format!("{name}.json"))).ok()?;
    let kept: Value = serde_json::from_str(&text).ok()?;
    let quick = if kept["quick"] == true { " (a quick run: to try it out, not to be believed)" } else { "" };
    let command = kept["command"].as_str().unwrap_or_default();
    Some((kept["result"].clone(), format!("`{command}`{quick}\n")))
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

fn numbers(values: &Value) -> Vec<f64> {
    values.as_array().map(|values| values.iter().map(number).collect()).unwrap_or_default()
}

/// Says in a word whether a goal is met.
fn met(is: bool) -> &'static str {
    if is { "met" } else { "missed" }
}

impl Report {
    fn say(&mut self, text: impl AsRef<str>) {
        self.text.push_str(text.as_ref());
        self.text.push('\n');
    }

    fn row(&mut self, cells: &[String]) {
        self.say(format!("| {} |", cells.join(" | ")));
    }

    fn table(&mut self, head: &[&str]) {
        self.say(format!("\n| {} |\n|{}", head.join(" | "), "---|".repeat(head.len())));
    }

    fn picture(&mut self, name: &str, alt: &str, svg: &str) -> Outcome<()> {
        fs::write(self.pictures.join(format!("{name}.svg")), svg)?;
        self.say(format!("\n![{alt}](plots/{name}.svg)"));
        Ok(())
    }

    fn missing(&mut self, part: &str) {
        self.say(format!("Not measured yet: `scripts/bench {part}`."));
    }

    fn head(&mut self) -> Outcome<()> {
        self.say("# What it costs\n");
        self.say(
            "A reader must never have a reason to keep its own copy of a token. Made by `scripts/bench`, on one machine; \
             ratios are of one run. Each part can be run alone, by the command that stands with it.\n",
        );
        let mut machines: Vec<Value> = Vec::new();
        for entry in fs::read_dir(results())?.filter_map(Result::ok) {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            let machine = serde_json::from_str::<Value>(&text).unwrap_or_default()["machine"].clone();
            if !machine.is_null() && !machines.contains(&machine) {
                machines.push(machine);
            }
        }
        machines.sort_by_key(Value::to_string);
        for machine in &machines {
            let text = |key: &str| machine[key].as_str().unwrap_or_default();
            self.say(format!(
                "- {}, {} cores, {} GiB, Linux {}; {}; wxtokend {}; {}; {}",
                text("processor"),
                machine["cores"],
                machine["memory_gib"],
                text("kernel"),
                text("rust"),
                text("wxtokend"),
                text("redis"),
                text("wrk"),
            ));
        }
        self.say(
            "\nOne load generator (`benches/load/client.rs` of this folder) speaks HTTP and Redis, without pipelining, so that what a client \
             costs is the same whoever answers; wrk is the second opinion on HTTP, with one URL. The server under test has a \
             core of its own, clients and the simulated WeChat have the other: what a server can is then what it can on one \
             core.",
        );
        Ok(())
    }

    fn http(&mut self) -> Outcome<()> {
        self.say("\n## A token read over HTTP\n");
        let Some((http, command)) = saved("http") else {
            self.missing("http");
            return Ok(());
        };
        self.say(command);
        self.say(format!(
            "{} connections that are kept, {} accounts in turn, a key checked on each read, an answer of {} bytes behind its \
             headers, as most are; axum answers a fixed body of that size with the same headers; Redis has the same tokens \
             under WxJava's keys. Reads a second, median of five rounds in turn. A fixed body stays in the processor's caches, and {} tokens \
             do not: what that costs is seen where {} of the accounts are read alone.",
            http["connections"], http["accounts"], http["body_bytes"], http["accounts"], http["few"]
        ));
        self.say("\nThe server on one core, those who ask on the other:");
        self.capacity(&http["capacity"]);
        self.say(
            "\nAll on both cores, as nobody has told them otherwise (Redis answers in one thread, whatever there is; the client \
             takes its share of the cores from whom it asks):",
        );
        self.capacity(&http["on_all_cores"]);
        self.say(format!(
            "\nAt {:.0} reads a second, a fifth of that, latency in ms:",
            number(&http["rate"])
        ));
        self.table(&["while", "p50", "p99", "p99.9", "most", "p99 above calm (goal: 3)", ""]);
        let rows = http["paced"].as_array().cloned().unwrap_or_default();
        let calm: Vec<f64> =
            rows.iter().filter(|row| row["what"] == "").map(|row| number(&row["p99_us"])).collect();
        let calm = median(&calm);
        for row in &rows {
            let title = match row["what"].as_str().unwrap_or_default() {
                "refreshes" => format!("a tenth of the fleet refreshes ({} accounts)", row["done"]),
                "hang" => format!("the upstream hangs, {} accounts ask it", row["done"]),
                "scrapes" => format!("`/metrics` is scraped each second ({} times)", row["done"]),
                "polls" => format!("{} long polls are open", row["done"]),
                _ => "nothing else goes on".to_owned(),
            };
            let ms = |key: &str| format!("{:.2}", number(&row[key]) / 1000.0);
            let above = (number(&row["p99_us"]) - calm) / 1000.0;
            let is_calm = row["what"] == "";
            let verdict = if is_calm { String::new() } else { met(above <= 3.0).to_owned() };
            let above = if is_calm { String::new() } else { format!("{above:.2}") };
            self.row(&[title, ms("p50_us"), ms("p99_us"), ms("p999_us"), ms("max_us"), above, verdict]);
        }
        Ok(())
    }

    fn proxy(&mut self) {
        self.say("\n## A call that is passed on\n");
        let Some((proxy, command)) = saved("proxy") else {
            self.missing("proxy");
            return;
        };
        self.say(command);
        self.say(format!(
            "{} connections that are kept, a call with an answer of {} bytes of JSON, which is looked into; nginx passes the same \
             call on, with one worker and kept connections. Each has a core of its own, upstream and clients the other. Median \
             of five rounds in turn.",
            proxy["connections"], proxy["body_bytes"]
        ));
        self.table(&["", "calls a second", "CPU, µs a call", "of it the kernel's"]);
        for (name, title) in [("wxtokend", "wxtokend"), ("nginx", "nginx `proxy_pass`")] {
            let of = &proxy[name];
            let us = |key: &str| format!("{:.1}", number(&of[key]));
            self.row(&[
                title.to_owned(),
                format!("{:.0}", number(&of["median"])),
                us("cpu_us"),
                us("system_us"),
            ]);
        }
        let ratio = number(&proxy["ratio"]);
        self.table(&["ratio", "reached", "goal", ""]);
        self.row(&[
            "to nginx, median of the rounds".to_owned(),
            format!("{ratio:.2}"),
            "0.8".to_owned(),
            met(ratio >= 0.8).to_owned(),
        ]);
        self.say(format!("\nAt {:.0} calls a second, half of that, latency in ms:", number(&proxy["rate"])));
        self.table(&["", "p50", "p99", "p99.9", "p99 added (goal: 1)", ""]);
        let direct = number(&proxy["paced"]["direct"]["p99_us"]);
        for (name, title) in
            [("direct", "the upstream itself"), ("wxtokend", "wxtokend"), ("nginx", "nginx `proxy_pass`")]
        {
            let of = &proxy["paced"][name];
            let ms = |key: &str| format!("{:.2}", number(&of[key]) / 1000.0);
            let added = (number(&of["p99_us"]) - direct) / 1000.0;
            let (added, verdict) = match name {
                "direct" => (String::new(), String::new()),
                "wxtokend" => (format!("{added:.2}"), met(added <= 1.0).to_owned()),
                _ => (format!("{added:.2}"), String::new()),
            };
            self.row(&[title.to_owned(), ms("p50_us"), ms("p99_us"), ms("p999_us"), added, verdict]);
        }
    }

    fn capacity(&mut self, capacity: &Value) {
        self.table(&[
            "",
            "own client",
            "by wrk",
            "CPU of the server, µs a read",
            "of it the kernel's",
            "cores in use",
            "least to most",
        ]);
        for (name, title) in [
            ("wxtokend", "wxtokend"),
            ("few", "wxtokend, few accounts in turn"),
            ("axum", "bare axum"),
            ("redis", "Redis GET"),
        ] {
            let of = &capacity[name];
            let mut all = numbers(&of["per_second"]);
            all.sort_by(f64::total_cmp);
            self.row(&[
                title.to_owned(),
                format!("{:.0}", number(&of["median"])),
                of["wrk_median"].as_f64().map_or("–".to_owned(), |rate| format!("{rate:.0}")),
                format!("{:.2}", number(&of["cpu_us"])),
                format!("{:.2}", number(&of["system_us"])),
                format!("{:.2}", number(&of["busy"])),
                format!("{:.0} to {:.0}", all.first().unwrap_or(&0.0), all.last().unwrap_or(&0.0)),
            ]);
        }
        let of = |name: &str, key: &str| number(&capacity[name][key]);
        let ratio = |key: &str, other: &str| of("wxtokend", key) / of(other, key);
        let few = of("few", "median") / of("axum", "median");
        let (axum, wrk, redis) =
            (ratio("median", "axum"), ratio("wrk_median", "axum"), ratio("median", "redis"));
        self.table(&["ratio", "reached", "goal", ""]);
        for (what, reached, goal) in [
            ("to bare axum", axum, 0.9),
            ("to bare axum, by wrk", wrk, 0.9),
            ("few accounts in turn, to bare axum", few, 0.9),
            ("to Redis GET", redis, 1.0),
        ] {
            self.row(&[
                what.to_owned(),
                format!("{reached:.2}"),
                format!("{goal:.1}"),
                met(reached >= goal).to_owned(),
            ]);
        }
    }

    fn library(&mut self) -> Outcome<()> {
        self.say("\n## A read by the library\n");
        let criterion = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/criterion");
        let ns = |path: &str| -> Option<f64> {
            let text = fs::read_to_string(criterion.join(path).join("new/estimates.json")).ok()?;
            serde_json::from_str::<Value>(&text).ok()?["median"]["point_estimate"].as_f64()
        };
        if ns("read/Fleet__token/1").is_none() {
            self.missing("library");
            return Ok(());
        }
        self.say("`scripts/bench library` (criterion, medians)\n\nTime of one read in ns, as a thread sees it that does nothing else:");
        self.table(&["threads", "`Fleet::token`", "10 000 accounts in turn", "`watch`", "actor `ask`"]);
        for threads in [1, 2, 8] {
            let names = ["Fleet__token", "Fleet__token, 10 000 in turn", "watch", "actor ask"];
            let cells = names.map(|name| {
                ns(&format!("read/{name}/{threads}")).map_or("–".to_owned(), |ns| format!("{ns:.0}"))
            });
            self.row(&[&[threads.to_string()][..], &cells[..]].concat());
        }
        let hot = ns("read/Fleet__token/1").unwrap_or(f64::NAN);
        self.say(format!("\nGoal: under 100 ns hot: {:.0} ns, {}.", hot, met(hot < 100.0)));
        let text = fs::read_to_string(results().join("functions.json")).unwrap_or_default();
        let functions: Value = serde_json::from_str(&text).unwrap_or_default();
        self.say(format!(
            "Allocations of a read: {:.3}. No lock is taken: maps and states are loaded with `arc-swap`.",
            number(&functions["allocations_per_read"])
        ));
        let cells = ["next_step", "record__encode", "record__decode"]
            .map(|name| ns(name).map_or("–".to_owned(), |ns| format!("{ns:.0}")));
        self.say(format!("\nOf what an account does besides, in ns: `next_step` {}, a record of the store written {} and read {}.", cells[0], cells[1], cells[2]));
        Ok(())
    }

    fn sizes(&mut self) -> Outcome<()> {
        self.say("\n## Fleets of 1 000, 10 000 and 100 000\n");
        let all: Vec<(Value, String)> =
            SIZES.iter().filter_map(|size| saved(&format!("size-{size}"))).collect();
        if all.is_empty() {
            self.missing("size");
            return Ok(());
        }
        for (_, command) in &all {
            self.say(command);
        }
        let head: Vec<String> = all.iter().map(|(size, _)| size["accounts"].to_string()).collect();
        let mut columns = vec!["accounts"];
        columns.extend(head.iter().map(String::as_str));
        columns.push("goal");
        self.table(&columns);
        type Look = fn(&Value) -> f64;
        let rows: [(&str, Look, usize, &str); 23] = [
            ("memory, MiB", |of| number(&of["resident_kib"]) / 1024.0, 1, ""),
            (
                "of it pages of the program and its libraries, MiB",
                |of| number(&of["resident_file_kib"]) / 1024.0,
                1,
                "",
            ),
            ("memory an account, KiB", |of| number(&of["resident_kib"]) / number(&of["accounts"]), 2, "12"),
            (
                "the same after a restart, KiB",
                |of| number(&of["resident_again_kib"]) / number(&of["accounts"]),
                2,
                "12",
            ),
            ("idle, % of a core", |of| number(&of["idle_share"]) * 100.0, 2, "2"),
            ("exec to serving, tokens on disk, s", |of| number(&of["start_s"]), 3, "2"),
            ("the same after `kill -9`, s", |of| number(&of["start_after_kill_s"]), 3, ""),
            ("calls of WeChat at those starts", |of| number(&of["calls_at_start"]), 0, "0"),
            ("cold start, WeChat takes 20 ms, s", |of| number(&of["cold_s"]), 2, ""),
            ("of that until it serves, s", |of| number(&of["cold_serving_s"]), 2, ""),
            ("what `max_in_flight: 64` allows, s", |of| number(&of["cold_ideal_s"]), 2, ""),
            ("ratio", |of| number(&of["cold_s"]) / number(&of["cold_ideal_s"]), 2, "1.15"),
            ("a call of WeChat's, alone, ms", |of| number(&of["call_alone_s"]) * 1000.0, 2, ""),
            ("what 64 such at once allow, s", |of| number(&of["cold_ideal_of_calls_s"]), 2, ""),
            ("ratio", |of| number(&of["cold_s"]) / number(&of["cold_ideal_of_calls_s"]), 2, ""),
            (
                "ratio from when it serves",
                |of| {
                    let served = number(&of["cold_s"]) - number(&of["cold_serving_s"]);
                    served / number(&of["cold_ideal_of_calls_s"])
                },
                2,
                "",
            ),
            (
                "a reader of the last account has its token after, s",
                |of| number(&of["reader_waits_s"]),
                2,
                "",
            ),
            (
                "store, KiB an account",
                |of| number(&of["store_bytes"]) / 1024.0 / number(&of["accounts"]),
                2,
                "",
            ),
            ("commits of the cold start", |of| number(&of["commits"]), 0, ""),
            ("commits a second", |of| number(&of["commits"]) / number(&of["cold_s"]), 0, ""),
            ("a commit, ms", |of| number(&of["commit_s"]) / number(&of["commits"]) * 1000.0, 2, ""),
            ("a scrape, ms", |of| number(&of["scrape_s"]) * 1000.0, 1, ""),
            ("a stop, s", |of| number(&of["stop_s"]), 2, "10"),
        ];
        for (title, look, digits, goal) in rows {
            let mut cells = vec![title.to_owned()];
            cells.extend(all.iter().map(|(of, _)| format!("{:.digits$}", look(of))));
            cells.push(goal.to_owned());
            self.row(&cells);
        }
        let pictures: [(&str, &str, &str, Look); 7] = [
            ("memory", "Memory", "MiB", |of| number(&of["resident_kib"]) / 1024.0),
            ("idle", "Idle", "% of a core", |of| number(&of["idle_share"]) * 100.0),
            ("start", "From exec to serving, tokens on disk", "s", |of| number(&of["start_s"])),
            ("cold", "Cold start, WeChat takes 20 ms", "s", |of| number(&of["cold_s"])),
            ("store", "Size of the store", "MiB", |of| number(&of["store_bytes"]) / 1024.0 / 1024.0),
            ("commits", "Commits of a cold start", "commits", |of| number(&of["commits"])),
            ("scrape", "A scrape", "ms", |of| number(&of["scrape_s"]) * 1000.0),
        ];
        for (name, title, unit, look) in pictures {
            let points: Vec<(f64, f64)> =
                all.iter().map(|(of, _)| (number(&of["accounts"]), look(of))).collect();
            let Some((first, last)) = points.first().zip(points.last()) else { continue };
            let linear = vec![*first, (last.0, first.1 * last.0 / first.0)];
            let lines = [Line::new("measured", points.clone()), Line::dashed("proportional", linear)];
            self.picture(name, title, &chart(title, "accounts", unit, Scale::Logarithmic, &lines)?)?;
        }
        Ok(())
    }

    fn spread(&mut self) -> Outcome<()> {
        self.say("\n## The spread of refreshes\n");
        let Some((spread, command)) = saved("spread") else {
            self.missing("spread");
            return Ok(());
        };
        self.say(command);
        self.say(format!(
            "{} accounts over {} days by the program's own decisions, from one start at which none has a token, with \
             `max_per_second: 100`. The start itself, which is as fast as that allows, is left out of the peaks. On \
             `stable_token` a wave is as wide as the start and the window in which a call is no wasted one (99 s of 7200): \
             it flattens over weeks, and never above what the gate lets pass. A second may begin with any tenth.",
            spread["accounts"], spread["days"]
        ));
        self.table(&[
            "",
            "calls an account and day",
            "mean, calls/s",
            "peak of a minute",
            "ratio",
            "peak of the last day",
            "ratio",
            "peak of a second",
            "ratio",
            "the same of calls at random",
        ]);
        for of in spread["endpoints"].as_array().cloned().unwrap_or_default() {
            let (mean, peak, last) = (
                number(&of["mean"]),
                number(&of["peak_of_a_minute"]),
                number(&of["last_day_peak_of_a_minute"]),
            );
            let name = of["endpoint"].as_str().unwrap_or_default().to_owned();
            self.row(&[
                format!("`{name}`"),
                format!("{:.2}", number(&of["calls_per_account_and_day"])),
                format!("{mean:.1}"),
                format!("{peak:.1}"),
                format!("{:.2}", peak / mean),
                format!("{last:.1}"),
                format!("{:.2}", last / mean),
                of["peak_of_a_second"].to_string(),
                format!("{:.2}", number(&of["peak_of_a_second"]) / mean),
                of["peak_at_random"].to_string(),
            ]);
        }
        for of in spread["endpoints"].as_array().cloned().unwrap_or_default() {
            let name = of["endpoint"].as_str().unwrap_or_default();
            let points: Vec<(f64, f64)> = (0_u32..)
                .zip(numbers(&of["per_minute"]))
                .map(|(minute, rate)| (f64::from(minute) / 60.0, rate))
                .collect();
            let end = points.last().map_or(0.0, |(hour, _)| *hour);
            let mean = number(&of["mean"]);
            let lines = [
                Line::new("calls", points),
                Line::dashed("mean", vec![(0.0, mean), (end, mean)]),
                Line::dashed("twice that", vec![(0.0, mean * 2.0), (end, mean * 2.0)]),
            ];
            let title = format!("Calls of {name}");
            let svg = chart(&title, "hours since the start", "calls/s", Scale::Linear, &lines)?;
            self.picture(&format!("spread-{name}"), &title, &svg)?;
        }
        Ok(())
    }

    fn storm(&mut self) -> Outcome<()> {
        self.say("\n## Rejection storms\n");
        let Some((storm, command)) = saved("storm") else {
            self.missing("storm");
            return Ok(());
        };
        self.say(command);
        self.say(format!(
            "{} clients, each on a connection of its own, report the same dead token at once:",
            storm["clients"]
        ));
        self.table(&[
            "",
            "checks",
            "token calls",
            "mints",
            "first answer, s",
            "last answer, s",
            "between (goal: 2)",
            "outcomes",
        ]);
        for of in storm["storms"].as_array().cloned().unwrap_or_default() {
            let (first, last) = (number(&of["first_s"]), number(&of["last_s"]));
            self.row(&[
                format!("`{}`", of["endpoint"].as_str().unwrap_or_default()),
                of["checks"].to_string(),
                of["calls"].to_string(),
                of["mints"].to_string(),
                format!("{first:.2}"),
                format!("{last:.2}"),
                format!("{:.2}", last - first),
                of["outcomes"].to_string(),
            ]);
        }
        self.say("\nOn `stable_token` the first call asks in normal mode, since somebody may have forced a newer one; it mints here as the dead one is gone at WeChat.");
        Ok(())
    }

    /// Ways of building it, and what was changed by hand, which is also recorded by hand.
    fn build(&mut self) -> Outcome<()> {
        self.say("\n## How it is built\n");
        if let Some((profiles, command)) = saved("profiles") {
            self.say(command);
            self.say(format!(
                "Each built from an empty target folder on both cores. Then, taking turns, read over HTTP as above, {} \
                 accounts: medians of {}, and the least of the CPU times, which depends less on what else the machine \
                 was at.",
                profiles["accounts"], profiles["rounds"],
            ));
            let titles = [
                "",
                "built in, s",
                "size, MB",
                "reads a second",
                "CPU a read, µs",
                "at least, µs",
                "memory, MiB",
            ];
            self.table(&titles);
            for of in profiles["ways"].as_array().into_iter().flatten() {
                self.row(&[
                    of["what"].as_str().unwrap_or_default().to_owned(),
                    of["built_s"].as_f64().map_or("–".to_owned(), |seconds| format!("{seconds:.0}")),
                    format!("{:.1}", number(&of["bytes"]) / 1e6),
                    format!("{:.0}", number(&of["per_second"])),
                    format!("{:.2}", number(&of["cpu_us"])),
                    format!("{:.2}", number(&of["least_cpu_us"])),
                    format!("{:.0}", number(&of["resident_kib"]) / 1024.0),
                ]);
            }
        } else {
            self.missing("profiles");
        }
        let notes = Path::new(env!("CARGO_MANIFEST_DIR")).join("improvements.md");
        let _ = write!(self.text, "\n{}", fs::read_to_string(notes)?);
        Ok(())
    }

    fn soak(&mut self) -> Outcome<()> {
        self.say("\n## Soak\n");
        let Some((soak, command)) = saved("soak") else {
            self.missing("soak");
            return Ok(());
        };
        self.say(command);
        let samples = soak["samples"].as_array().cloned().unwrap_or_default();
        let of = |key: &str| -> Vec<(f64, f64)> {
            samples.iter().map(|sample| (number(&sample["at_s"]) / 60.0, number(&sample[key]))).collect()
        };
        let minutes = of("at_s").last().map_or(0.0, |(minutes, _)| *minutes);
        self.say(format!(
            "{:.0} minutes of reads as fast as they are answered, {} of them, of {} accounts whose tokens live for a minute. \
             The half of the time after the first tenth, which warms up, beside the rest: of the samples, one each {:.0} s, the \
             lowest tenth, the median and the highest tenth. All accounts began together and refresh in waves of 50 s, which \
             flatten by and by: the low are between two waves, the high within one, and the medians of what a wave costs rise \
             with the share of time that waves take.",
            minutes,
            soak["reads"],
            soak["accounts"],
            minutes * 60.0 / samples.len() as f64,
        ));
        self.table(&["", "then", "at the end", "low", "median", "high"]);
        for (key, title, unit) in [
            ("resident_kib", "memory, MiB", 1024.0),
            ("descriptors", "descriptors", 1.0),
            ("per_second", "reads a second", 1.0),
            ("p50_us", "p50, ms", 1000.0),
            ("p99_us", "p99, ms", 1000.0),
            ("store_bytes", "store, MiB", 1024.0 * 1024.0),
        ] {
            let values: Vec<f64> = of(key).into_iter().map(|(_, value)| value / unit).collect();
            let warm = &values[values.len() / 10..];
            let (then, now) = warm.split_at(warm.len() / 2);
            let spread = |of: &[f64]| {
                let mut of = of.to_vec();
                of.sort_by(f64::total_cmp);
                [0.1, 0.5, 0.9].map(|share| of[((of.len() - 1) as f64 * share) as usize])
            };
            let (then, now) = (spread(then), spread(now));
            let cell = |of: [f64; 3]| of.map(|value| format!("{value:.2}")).join(" / ");
            let mut row = vec![title.to_owned(), cell(then), cell(now)];
            row.extend(
                then.iter().zip(now).map(|(then, now)| format!("{:+.1} %", (now / then - 1.0) * 100.0)),
            );
            self.row(&row);
        }
        let scaled =
            |key: &str, unit: f64| of(key).into_iter().map(|(at, value)| (at, value / unit)).collect();
        let memory = [
            Line::new("memory", scaled("resident_kib", 1024.0)),
            Line::new("store", scaled("store_bytes", 1024.0 * 1024.0)),
        ];
        self.picture(
            "soak-memory",
            "Memory",
            &chart("Memory and store", "minutes", "MiB", Scale::Linear, &memory)?,
        )?;
        let latency =
            [Line::new("p50", scaled("p50_us", 1000.0)), Line::new("p99", scaled("p99_us", 1000.0))];
        self.picture(
            "soak-latency",
            "Latency",
            &chart("Latency", "minutes", "ms", Scale::Linear, &latency)?,
        )?;
        let descriptors = [Line::new("descriptors", scaled("descriptors", 1.0))];
        self.picture(
            "soak-descriptors",
            "Descriptors",
            &chart("Descriptors", "minutes", "open", Scale::Linear, &descriptors)?,
        )
    }
}
