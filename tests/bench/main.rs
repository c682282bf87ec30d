//! `backstay-bench`: Backstay's engine beside other backup programs, on the same data, in the same run.
//!
//! Every row is done by one tool after the other before the next row begins; the order of tools changes with each
//! round. The page cache is warm unless it is to be cold, repositories are local and on the disk of the data. No agent, no controller, no lab:
//! Backstay works through `backstayctl repo`.
#![expect(
    clippy::print_stdout,
    reason = "this is a command that talks to people"
)]

mod data;
mod measure;
mod report;
mod sets;
mod tools;
mod used;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use std::{env, fs};

use lab::{Doing, Fault, Result, command};
use serde_json::Value;

use measure::Cost;
use report::Report;
use sets::{Set, extent, make_directory, remove, warm};
use tools::{Bench, Tool, Work};
use used::{Used, touch_free_memory};

const USAGE: &str = "\
usage: backstay-bench SETS TOOLS RUNS RESULTS
  SETS     linux,hosting,media,dumps or all
  TOOLS    backstay,restic,rustic,borg or all
  RUNS     how often each row is measured
  RESULTS  the file for the results, as JSON
With CACHE=cold in the environment the page cache is emptied before each row, which needs root.
Data, programs and work lie below $BACKSTAY_CACHE/bench; $BACKSTAYCTL is the program to measure, and
$BACKSTAY_CEILING what computes the least that it must.";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let result = match arguments.split_first() {
        Some((first, rest)) if first == "measure" => measure::measure(rest),
        _ => match arguments.as_slice() {
            [sets, tools, runs, results] => bench(sets, tools, runs, Path::new(results)),
            _ => {
                println!("{USAGE}");
                return ExitCode::from(2);
            }
        },
    };
    result.unwrap_or_else(|fault| {
        println!("Error: {fault:?}");
        ExitCode::FAILURE
    })
}

fn bench(sets: &str, tools: &str, runs: &str, results: &Path) -> Result<ExitCode> {
    let sets = chosen(sets, &Set::ALL, Set::name)?;
    let wanted = chosen(tools, &Tool::ALL, Tool::name)?;
    let runs: usize = runs
        .parse()
        .doing(|| format!("reading the number of runs, {runs:?}"))?;
    let cache = env::var_os("BACKSTAY_CACHE").doing(|| "reading BACKSTAY_CACHE")?;
    let bench = PathBuf::from(cache).join("bench");
    let work = bench.join("work");
    let used = Used::begin(bench.join("used"))?;
    used.put([work.clone()])?;
    make_directory(&work)?;
    let mut found = Vec::new();
    for tool in wanted {
        match Bench::find(tool, &bench, &work)? {
            Some(tool) => found.push(tool),
            None => println!("{} is not there and left out", tool.name()),
        }
    }
    let mut all: Vec<Value> = Vec::new();
    for set in sets {
        let from = set.ensure(&bench)?;
        let measured = Rounds {
            set,
            from,
            copy: work.join("data"),
            used: &used,
            tools: &found,
            is_cold: env::var_os("CACHE").is_some_and(|cache| cache == "cold"),
        }
        .measure(runs)?;
        println!("{}", measured.table(&found));
        all.extend(measured.results(set.name(), &found));
        report::write(&all, results)?;
    }
    remove(&work)?;
    used.end()?;
    println!(
        "written to {}; for some minutes now ext4 makes files slowly",
        results.display()
    );
    Ok(ExitCode::SUCCESS)
}

/// Reads names divided by commas; `all` is all of them.
fn chosen<T: Copy>(text: &str, all: &[T], name: impl Fn(T) -> &'static str) -> Result<Vec<T>> {
    if text == "all" {
        return Ok(all.to_vec());
    }
    let one = |word: &str| {
        let found = all.iter().copied().find(|one| name(*one) == word);
        found.ok_or_else(|| Fault::new(format!("{word:?} is not known\n{USAGE}")))
    };
    text.split(',').map(one).collect()
}

/// All rounds over one data set.
struct Rounds<'a> {
    set: Set,
    from: PathBuf,
    copy: PathBuf,
    tools: &'a [Bench],
    used: &'a Used,
    /// Everything is read from the disk.
    is_cold: bool,
}

impl Rounds<'_> {
    fn measure(&self, runs: usize) -> Result<Report> {
        let mut report = Report::default();
        self.set.copy(&self.from, &self.copy)?;
        let (files, bytes) = extent(&self.copy)?;
        println!(
            "{}: {files} files, {:.2} GB; {runs} rounds",
            self.set.name(),
            gigabytes(bytes)
        );
        for round in 0..runs {
            self.round(round, &mut report)?;
        }
        self.used.put([self.copy.clone()])?;
        Ok(report)
    }

    fn round(&self, round: usize, report: &mut Report) -> Result<()> {
        if round > 0 {
            self.set.begin(&self.from, &self.copy)?;
        }
        let mut tools: Vec<&Bench> = self.tools.iter().collect();
        let turn = round.checked_rem(tools.len()).unwrap_or(0);
        tools.rotate_left(turn);
        for bench in &tools {
            self.work(bench, Work::Init, 0)?;
        }
        touch_free_memory();
        for bench in &tools {
            let cost = self.work(bench, Work::Backup, 1)?;
            report.cost("first backup", bench.tool, cost);
            if bench.tool == Tool::Backstay && !self.is_cold {
                let least = self.least(bench)?.wall_secs;
                report.share("share of the ceiling", bench.tool, least / cost.wall_secs);
            }
            report.bytes("stored", bench.tool, extent(&bench.repository())?.1);
        }
        for bench in &tools {
            report.cost("unchanged", bench.tool, self.work(bench, Work::Backup, 2)?);
        }
        self.set.change(&self.from, &self.copy, round)?;
        for bench in &tools {
            let before = extent(&bench.repository())?.1;
            report.cost(
                self.changed_row(),
                bench.tool,
                self.work(bench, Work::Backup, 3)?,
            );
            let newly = extent(&bench.repository())?.1.saturating_sub(before);
            report.bytes("newly stored", bench.tool, newly);
        }
        for bench in &tools {
            self.restore(bench, report)?;
        }
        for bench in &tools {
            report.cost(
                "verify all data",
                bench.tool,
                self.work(bench, Work::Verify, 3)?,
            );
        }
        for bench in &tools {
            report.cost(
                "forget and prune",
                bench.tool,
                self.work(bench, Work::Tidy, 3)?,
            );
            report.bytes(
                "stored after prune",
                bench.tool,
                extent(&bench.repository())?.1,
            );
        }
        let left = tools.iter().flat_map(|bench| bench.leaves());
        self.used.put(left)
    }

    fn restore(&self, bench: &Bench, report: &mut Report) -> Result<()> {
        make_directory(&bench.target())?;
        let cost = self.work(bench, Work::Restore, 3)?;
        report.cost("restore", bench.tool, cost);
        // Some are done when all is in the page cache; a power cut would take it away again.
        let begun = Instant::now();
        self.settle()?;
        let on_disk = cost.wall_secs + begun.elapsed().as_secs_f64();
        report.seconds("restore, all on the disk", bench.tool, on_disk);
        if extent(&bench.target())? != extent(&self.copy)? {
            return Err(Fault::new(format!(
                "{} restored something else than was backed up",
                bench.tool.name()
            )));
        }
        Ok(())
    }

    /// Computes and writes what the first backup of these files must, and nothing else.
    fn least(&self, bench: &Bench) -> Result<Cost> {
        self.settle()?;
        bench.least(&self.copy).run()
    }

    const fn changed_row(&self) -> &'static str {
        match self.set {
            Set::Dumps => "100 rows edited",
            Set::Linux | Set::Hosting | Set::Media => "1 % of files changed",
        }
    }

    fn settle(&self) -> Result<()> {
        command::run("sync", &["-f", &self.copy.display().to_string()]).map(drop)
    }

    /// Lets a tool do a piece of work, with nothing left to write by others.
    fn work(&self, bench: &Bench, work: Work, number: usize) -> Result<Cost> {
        if work == Work::Backup && !self.is_cold {
            // borg drops from the page cache what it has read.
            warm(&self.copy)?;
        }
        self.settle()?;
        if self.is_cold {
            fs::write("/proc/sys/vm/drop_caches", "3").doing(|| "emptying the page cache")?;
        }
        let mut cost = Cost::default();
        print!("  {} {work:?} … ", bench.tool.name());
        io::stdout().flush().doing(|| "writing")?;
        for step in bench.steps(work, &self.copy, number) {
            cost = cost.then(step.run()?);
        }
        println!("{:.2} s", cost.wall_secs);
        Ok(cost)
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people, with two digits")]
fn gigabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}
