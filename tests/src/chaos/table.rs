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

/// Of the second table: what there is beside messages from user to user.
const HEAD_BESIDE: [&str; 10] = [
    "fault",
    "published",
    "rooms wrong",
    "watchers wrong",
    "receipts asked",
    "receipts wrong",
    "events",
    "events wrong",
    "to the absent",
    "reports wrong",
];

impl Row {
    fn cells_beside(&self, fault: &str) -> [String; 10] {
        let numbers = [
            self.published,
            self.rooms,
            self.watchers,
            self.receipts_asked,
            self.receipts,
            self.events_asked,
            self.events,
            self.reports_due,
            self.undelivered,
        ];
        let mut cells = std::array::from_fn(|_| fault.to_owned());
        cells[1..].iter_mut().zip(numbers).for_each(|(cell, n)| *cell = n.to_string());
        cells
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

impl Verdict {
    /// In the order of the list of faults, and the sum.
    fn rows<const N: usize>(&self, cells: fn(&Row, &str) -> [String; N]) -> Vec<[String; N]> {
        let mut total = Row::default();
        self.rows.values().for_each(|row| total.add(row));
        let names = std::iter::once("(before)").chain(Fault::ALL.map(Fault::name));
        let listed = names.filter_map(|name| Some(cells(self.rows.get(name)?, name)));
        listed.chain([cells(&total, "all")]).collect()
    }

    /// For a terminal.
    pub fn text(&self) -> String {
        let mut out = format!("seed {}: {}\n", self.seed, self.settings);
        out.push_str(&aligned(HEAD, &self.rows(Row::cells)));
        out.push_str(&aligned(HEAD_BESIDE, &self.rows(Row::cells_beside)));
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
        let (messages, beside) = (self.rows(Row::cells), self.rows(Row::cells_beside));
        format!("{}\n{}", in_markdown(HEAD, &messages), in_markdown(HEAD_BESIDE, &beside))
    }
}

fn aligned<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = head.map(|head| head.chars().count());
    for row in rows {
        widths.iter_mut().zip(row).for_each(|(width, cell)| *width = (*width).max(cell.chars().count()));
    }
    let mut out = String::new();
    for row in std::iter::once(&head.map(ToOwned::to_owned)).chain(rows) {
        for (i, (cell, width)) in row.iter().zip(widths).enumerate() {
            let space = " ".repeat(width - cell.chars().count());
            let _ = if i == 0 { write!(out, "{cell}{space}") } else { write!(out, "  {space}{cell}") };
        }
        out.push('\n');
    }
    out
}

fn in_markdown<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut out = line(&head.map(ToOwned::to_owned));
    out.push_str(&format!("|{}\n", "---|".repeat(N)));
    rows.iter().for_each(|row| out.push_str(&line(row)));
    out
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
        self.published += other.published;
        self.rooms += other.rooms;
        self.watchers += other.watchers;
        self.receipts_asked += other.receipts_asked;
        self.receipts += other.receipts;
        self.events_asked += other.events_asked;
        self.events += other.events;
        self.reports_due += other.reports_due;
        self.undelivered += other.undelivered;
    }
}
