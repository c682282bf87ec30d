//! What was measured, as a table for people and as `results.json` for programs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use lab::{Doing, Result};
use serde_json::{Value, json};

use crate::measure::Cost;
use crate::sets::make_directory;
use crate::tools::{Bench, Tool};

/// The unit of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Unit {
    Seconds,
    Bytes,
    Share,
}

/// What is measured, in the order of the table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    order: usize,
    name: String,
    unit: Unit,
}

/// All that was measured of one data set.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: BTreeMap<Row, BTreeMap<&'static str, Vec<f64>>>,
}

/// Median, least and greatest of some values.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let upper = *sorted.get(middle)?;
        let lower = *sorted.get(sorted.len().checked_sub(1)? / 2)?;
        Some(Self {
            median: f64::midpoint(lower, upper),
            min: *sorted.first()?,
            max: *sorted.last()?,
        })
    }
}

impl Report {
    /// Notes what a row cost: its time, processor time and memory.
    pub(crate) fn cost(&mut self, row: &str, tool: Tool, cost: Cost) {
        self.seconds(row, tool, cost.wall_secs);
        self.value(&format!("{row}: CPU"), Unit::Seconds, tool, cost.cpu_secs);
        self.value(
            &format!("{row}: peak memory"),
            Unit::Bytes,
            tool,
            as_number(cost.peak_bytes),
        );
    }

    pub(crate) fn seconds(&mut self, row: &str, tool: Tool, seconds: f64) {
        self.value(row, Unit::Seconds, tool, seconds);
    }

    pub(crate) fn bytes(&mut self, row: &str, tool: Tool, bytes: u64) {
        self.value(row, Unit::Bytes, tool, as_number(bytes));
    }

    /// Notes how much of something is reached.
    pub(crate) fn share(&mut self, row: &str, tool: Tool, share: f64) {
        self.value(row, Unit::Share, tool, share);
    }

    fn value(&mut self, name: &str, unit: Unit, tool: Tool, value: f64) {
        let known = self.rows.keys().find(|row| row.name == name).cloned();
        let row = known.unwrap_or_else(|| Row {
            order: self.rows.len(),
            name: name.to_owned(),
            unit,
        });
        self.rows
            .entry(row)
            .or_default()
            .entry(tool.name())
            .or_default()
            .push(value);
    }

    /// Shows one line for each row: the medians, and Backstay's ratio to the best of the others.
    pub(crate) fn table(&self, tools: &[Bench]) -> String {
        let mut text = format!("{:<28}", "");
        for bench in tools {
            text += &format!("{:>18}", format!("{} {}", bench.tool.name(), bench.version));
        }
        text += &format!("{:>9}\n", "ratio");
        for (row, values) in &self.rows {
            let median = |tool: Tool| {
                values
                    .get(tool.name())
                    .and_then(|values| Spread::of(values))
                    .map(|found| found.median)
            };
            text += &format!("{:<28}", row.name);
            for bench in tools {
                let shown =
                    median(bench.tool).map_or("-".to_owned(), |value| shown(value, row.unit));
                text += &format!("{shown:>18}");
            }
            let others = Tool::ALL
                .into_iter()
                .filter(|tool| *tool != Tool::Backstay)
                .filter_map(median);
            let best = others.min_by(f64::total_cmp);
            let ratio = median(Tool::Backstay)
                .zip(best)
                .map(|(ours, best)| format!("{:.2}", ours / best));
            text += &format!("{:>9}\n", ratio.unwrap_or_default());
        }
        text
    }

    /// Gives one object for each row and tool.
    pub(crate) fn results(&self, set: &str, tools: &[Bench]) -> Vec<Value> {
        let mut results = Vec::new();
        for (row, values) in &self.rows {
            for bench in tools {
                let Some(spread) = values
                    .get(bench.tool.name())
                    .and_then(|values| Spread::of(values))
                else {
                    continue;
                };
                results.push(json!({
                    "dataset": set,
                    "row": row.name,
                    "tool": bench.tool.name(),
                    "version": bench.version,
                    "median": spread.median,
                    "min": spread.min,
                    "max": spread.max,
                    "unit": match row.unit {
                        Unit::Seconds => "s",
                        Unit::Bytes => "B",
                        Unit::Share => "1",
                    },
                }));
            }
        }
        results
    }
}

/// Writes all results.
///
/// # Errors
///
/// When the file cannot be written.
pub(crate) fn write(results: &[Value], path: &Path) -> Result<()> {
    make_directory(path.parent().unwrap_or(path))?;
    let text = serde_json::to_string_pretty(results).doing(|| "writing the results")?;
    fs::write(path, text + "\n").doing(|| format!("writing {}", path.display()))
}

fn shown(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Seconds => format!("{value:.2} s"),
        Unit::Bytes => format!("{:.1} MB", value / 1e6),
        Unit::Share => format!("{:.0} %", value * 100.0),
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "sizes of repositories are far below 2^52"
)]
const fn as_number(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        let spread =
            |values: &[f64]| Spread::of(values).map(|found| (found.median, found.min, found.max));
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Some((2.0, 1.0, 3.0)));
        assert_eq!(spread(&[4.0, 1.0]), Some((2.5, 1.0, 4.0)));
        assert_eq!(spread(&[]), None);
    }

    #[test]
    fn rows_keep_the_order_in_which_they_were_measured() {
        let mut report = Report::default();
        for row in ["unchanged", "first", "unchanged"] {
            report.cost(row, Tool::Restic, Cost::default());
        }
        let names: Vec<_> = report.rows.keys().map(|row| row.name.as_str()).collect();
        assert_eq!(names.first().copied(), Some("unchanged"));
        assert_eq!(names.get(3).copied(), Some("first"));
    }
}
