//! What was measured: goals with a verdict, and a table for each section, as Markdown.

use std::fmt::Write as _;

use crate::recorded::MARKS;
use crate::rounds::Spread;

#[derive(Debug, Clone, Copy)]
pub enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

impl Goal {
    fn is_met_by(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }

    /// A median that keeps the goal says less where a round did not.
    fn verdict(self, measured: &Spread) -> &'static str {
        let Spread { median, low, high } = *measured;
        match (self.is_met_by(median), self.is_met_by(low) && self.is_met_by(high)) {
            (true, true) => "yes",
            (true, false) => "by the median, not in every round",
            (false, _) if self.is_met_by(low) || self.is_met_by(high) => "no, though in some rounds",
            (false, _) => "no",
        }
    }
}

#[derive(Default)]
pub struct Report {
    goals: Vec<[String; 4]>,
    left_out: Vec<&'static str>,
    tables: String,
}

impl Report {
    /// A figure with a goal; none where an arm was left out.
    pub fn goal(&mut self, what: impl Into<String>, goal: Goal, digits: usize, unit: &str, measured: Option<Spread>) {
        let unit = if unit.is_empty() { String::new() } else { format!(" {unit}") };
        // Figures to so many digits; limits as they were set, but for one that has no end.
        let limit = |limit: f64| {
            let (full, cut) = (format!("{limit}"), format!("{limit:.digits$}"));
            if full.len() < cut.len() { full } else { cut }
        };
        let limit = match goal {
            Goal::AtMost(most) => format!("≤ {}{unit}", limit(most)),
            Goal::AtLeast(least) => format!("≥ {}{unit}", limit(least)),
        };
        let (shown, verdict) = match measured {
            Some(measured) => (format!("{}{unit}", measured.show(digits)), goal.verdict(&measured)),
            None => ("not measured, left out".to_owned(), "–"),
        };
        let what = what.into();
        println!("  {what}: {shown}; goal {limit}: {verdict}");
        self.goals.push([what, limit, shown, verdict.to_owned()]);
    }

    /// Says that an arm is not there; there is no figure of it.
    pub fn left_out<T>(&mut self, arm: &'static str) -> Option<T> {
        println!("  left out, since it was not built: {arm}");
        if !self.left_out.contains(&arm) {
            self.left_out.push(arm);
        }
        None
    }

    pub fn table(&mut self, title: &str, head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
        let text = format!("{title}\n\n{}", table(head, rows));
        println!("\n{text}");
        writeln!(self.tables, "{text}").expect("a string takes all");
    }

    /// The whole text, after the machine and the versions.
    pub fn finish(&self, machine: &str, notes: &str) -> String {
        let mut text = format!("{machine}\n{notes}\n");
        if !self.left_out.is_empty() {
            let names = self.left_out.join("; ");
            writeln!(text, "Left out, since they were not built here: {names}.\n").expect("a string takes all");
        }
        let goals = self.goals.iter().map(|row| row.to_vec());
        text + &table(&["figure", "goal", "measured: median (from to)", "met"], goals) + "\n" + &self.tables
    }
}

fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let head: Vec<String> = head.iter().map(ToString::to_string).collect();
    let rule = format!("|{}\n", "---|".repeat(head.len()));
    let rows = rows.into_iter().map(|row| {
        assert_eq!(row.len(), head.len(), "a cell for each column: {row:?}");
        line(&row)
    });
    line(&head) + &rule + &rows.collect::<String>()
}

/// The document with these results in place of those that it had.
pub fn splice(document: &str, results: &str) -> Result<String, &'static str> {
    const WRONG: &str = "expected one <!-- results --> line and one <!-- /results --> after it";
    let (before, rest) = document.split_once(MARKS[0]).ok_or(WRONG)?;
    let (_, after) = rest.split_once(MARKS[1]).ok_or(WRONG)?;
    if before.contains(MARKS[1]) || after.contains(MARKS[0]) || after.contains(MARKS[1]) {
        return Err(WRONG);
    }
    Ok(format!("{before}{}\n{}\n\n{}{after}", MARKS[0], results.trim_end(), MARKS[1]))
}

/// What would lie silently if it were wrong.
pub fn check() {
    let spread = |low, median, high| Spread { median, low, high };
    let verdicts = [(1.0, 1.1, 1.2), (1.0, 1.1, 1.3), (1.1, 1.25, 1.3), (1.25, 1.3, 1.4)]
        .map(|(low, median, high)| Goal::AtMost(1.2).verdict(&spread(low, median, high)));
    assert_eq!(verdicts, ["yes", "by the median, not in every round", "no, though in some rounds", "no"]);
    assert_eq!(Goal::AtLeast(5.0).verdict(&spread(5.0, 6.0, 7.0)), "yes");
    assert_eq!(Goal::AtLeast(5.0).verdict(&spread(3.0, 4.0, 4.5)), "no");

    let document = "# Head\n<!-- results -->\nold\n<!-- /results -->\nTail\n";
    let expected = "# Head\n<!-- results -->\n\nnew\n\n<!-- /results -->\nTail\n";
    assert_eq!(splice(document, "new\n").as_deref(), Ok(expected));
    assert_eq!(splice(expected, "new\n").as_deref(), Ok(expected));
    assert!(splice("# Head\n<!-- results -->\n", "new").is_err());
    assert!(splice(&document.repeat(2), "new").is_err());
}
