//! What was measured, turn by turn: medians and ratios, as a table for people and as JSON for programs.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::median;

/// Whose figure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    Floor,
    This,
    Beside,
}

#[derive(Debug)]
struct Row {
    what: String,
    unit: &'static str,
    /// Of each [`Who`], turn by turn.
    values: [Vec<f64>; 3],
}

impl Row {
    fn median(&self, who: Who) -> Option<f64> {
        let values = &self.values[who as usize];
        (!values.is_empty()).then(|| median(values.clone()))
    }

    fn ratio(&self, of: Who, to: Who) -> Option<f64> {
        self.median(of).zip(self.median(to)).filter(|(_, to)| *to > 0.0).map(|(of, to)| of / to)
    }
}

/// Rows in the order in which they were first noted.
#[derive(Debug, Default)]
pub(super) struct Report(Vec<Row>);

impl Report {
    pub(super) fn note(&mut self, who: Who, what: &str, unit: &'static str, value: f64) {
        let at = self.0.iter().position(|row| row.what == what).unwrap_or_else(|| {
            self.0.push(Row { what: what.to_owned(), unit, values: Default::default() });
            self.0.len() - 1
        });
        self.0[at].values[who as usize].push(value);
    }

    /// Those of one thing together, though its floor was noted long before.
    fn grouped(&self) -> Vec<&Row> {
        let group = |row: &Row| row.what.split(':').next().unwrap_or_default().to_owned();
        let mut groups: Vec<String> = Vec::new();
        for row in &self.0 {
            if !groups.contains(&group(row)) {
                groups.push(group(row));
            }
        }
        groups.iter().flat_map(|name| self.0.iter().filter(move |row| group(row) == *name)).collect()
    }

    pub(super) fn table(&self) -> String {
        let beside = self.0.iter().any(|row| row.median(Who::Beside).is_some());
        let mut text = String::from("| | this build | floor | × floor |");
        text.push_str(if beside { " beside | this ÷ beside |\n" } else { "\n" });
        text.push_str(if beside { "|---|---|---|---|---|---|\n" } else { "|---|---|---|---|\n" });
        for row in self.grouped() {
            let value = |who| row.median(who).map_or("–".to_owned(), |value| shown(value, row.unit));
            let ratio = |to| row.ratio(Who::This, to).map_or("–".to_owned(), |ratio| format!("{ratio:.2}"));
            let _ = write!(
                text,
                "| {} | {} | {} | {} |",
                row.what,
                value(Who::This),
                value(Who::Floor),
                ratio(Who::Floor)
            );
            if beside {
                let _ = write!(text, " {} | {} |", value(Who::Beside), ratio(Who::Beside));
            }
            text.push('\n');
        }
        text
    }

    pub(super) fn json(&self, about: Value) -> Value {
        let rows = self.0.iter().map(|row| {
            let of = |who| json!({ "median": row.median(who), "turns": row.values[who as usize] });
            json!({
                "what": row.what, "unit": row.unit,
                "this": of(Who::This), "floor": of(Who::Floor), "beside": of(Who::Beside),
                "this_to_floor": row.ratio(Who::This, Who::Floor),
                "this_to_beside": row.ratio(Who::This, Who::Beside),
            })
        });
        json!({ "about": about, "rows": rows.collect::<Vec<_>>() })
    }
}

/// Three digits are more than a shared machine is good for.
fn shown(value: f64, unit: &str) -> String {
    let (value, unit) = match unit {
        "µs" if value >= 10_000.0 => (value / 1000.0, "ms"),
        unit => (value, unit),
    };
    let digits = match value {
        _ if value >= 100.0 => 0,
        _ if value >= 10.0 => 1,
        _ => 2,
    };
    let space = if unit.is_empty() { "" } else { " " };
    format!("{value:.digits$}{space}{unit}")
}
