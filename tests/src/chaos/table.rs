//! A verdict for people: as text, and as Markdown for docs/RELIABILITY.md.

use std::fmt::Write;
use std::time::Duration;

use super::check::{Row, Verdict};
use super::faults::Fault;
use crate::ledger::quantile;

/// Flaws that are shown; all of them are in the file.
const FLAWS_SHOWN: usize = 20;

const HEAD: [&str; 13] = [
    "fault",
    "runs",
    "acked",
    "lost",
    "doubled",
    "order broken",
    "presence wrong",
    "recovery p50",
    "p95",
    "max",
    "all confirmed",
    "equal copies",
    "told to read on",
];

impl Row {
    fn cells(&self, fault: &str) -> [String; 13] {
        let time = |q: f64| match self.recovery.is_empty() {
            true => "–".to_owned(),
            false => seconds(quantile(&self.recovery, q)),
        };
        let copies = 100.0 * self.copies as f64 / self.messages.max(1) as f64;
        [
            fault.to_owned(),
            self.runs.to_string(),
            self.acked.to_string(),
            self.lost.to_string(),
            self.doubled.to_string(),
            self.disordered.to_string(),
            self.presence.to_string(),
            time(0.5),
            time(0.95),
            time(1.0),
            self.backlog.iter().max().map_or_else(|| "–".to_owned(), |longest| seconds(*longest)),
            format!("{copies:.2} %"),
            self.told.to_string(),
        ]
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

impl Verdict {
    /// In the order of the list of faults, and the sum.
    fn rows(&self) -> Vec<[String; 13]> {
        let mut total = Row::default();
        self.rows.values().for_each(|row| total.add(row));
        let names = Fault::ALL.map(Fault::name);
        let listed = names.into_iter().filter_map(|name| Some(self.rows.get(name)?.cells(name)));
        let calm = self.rows.get("(before)").map(|row| row.cells("(before)"));
        calm.into_iter().chain(listed).chain([total.cells("all")]).collect()
    }

    /// For a terminal.
    pub fn text(&self) -> String {
        let rows = self.rows();
        let mut widths = HEAD.map(|head| head.chars().count());
        for row in &rows {
            widths.iter_mut().zip(row).for_each(|(width, cell)| *width = (*width).max(cell.chars().count()));
        }
        let mut out = format!("seed {}: {}\n", self.seed, self.settings);
        for row in std::iter::once(&HEAD.map(ToOwned::to_owned)).chain(&rows) {
            for (i, (cell, width)) in row.iter().zip(widths).enumerate() {
                let space = " ".repeat(width - cell.chars().count());
                let _ = if i == 0 { write!(out, "{cell}{space}") } else { write!(out, "  {space}{cell}") };
            }
            out.push('\n');
        }
        for flaw in self.flaws.iter().take(FLAWS_SHOWN) {
            let _ = writeln!(out, "  {flaw}");
        }
        let _ = match self.flaws.len() {
            0 => writeln!(out, "no promise was broken"),
            n => writeln!(out, "{n} flaws"),
        };
        out
    }

    /// For docs/RELIABILITY.md.
    pub fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let mut out = line(&HEAD.map(ToOwned::to_owned));
        out.push_str(&format!("|{}\n", "---|".repeat(HEAD.len())));
        self.rows().iter().for_each(|row| out.push_str(&line(row)));
        out
    }
}

impl Row {
    fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.messages += other.messages;
        self.acked += other.acked;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.disordered += other.disordered;
        self.refused += other.refused;
        self.presence += other.presence;
        self.recovery.extend(&other.recovery);
        self.backlog.extend(&other.backlog);
        self.copies += other.copies;
        self.told += other.told;
    }
}
