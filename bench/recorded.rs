//! The figures that docs/benchmarks.md has recorded, read from its tables.

/// Where the results stand in docs/benchmarks.md.
pub const MARKS: [&str; 2] = ["<!-- results -->\n", "<!-- /results -->"];

/// Where a figure stands.
#[derive(Debug, Clone, Copy)]
pub enum At {
    /// In the first table, by its first column.
    Goal(&'static str),
    /// Among the single steps, in nanoseconds, by the first column.
    Step(&'static str),
    /// In a table whose title begins so, in the row whose first cells are so, in this column.
    Cell(&'static str, &'static str, &'static str),
}

/// The median, the lowest and the highest round.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figure {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

/// The tables of the results.
pub struct Figures(Vec<Table>);

struct Table {
    title: String,
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Figures {
    /// From the text of docs/benchmarks.md.
    pub fn of(document: &str) -> Self {
        let results = document.split_once(MARKS[0]).and_then(|(_, rest)| rest.split_once(MARKS[1]));
        let (results, _) = results.expect("docs/benchmarks.md has results between their marks");
        let (mut tables, mut title) = (Vec::<Table>::new(), String::new());
        let mut within = false;
        for line in results.lines() {
            let cells = line.strip_prefix("| ").and_then(|line| line.strip_suffix(" |"));
            let cells = cells.map(|cells| cells.split(" | ").map(str::to_owned).collect());
            match (cells, within) {
                (Some(head), false) => tables.push(Table { title: title.clone(), head, rows: Vec::new() }),
                (Some(row), true) => tables.last_mut().expect("a row comes after its head").rows.push(row),
                (None, _) if !line.is_empty() && !line.starts_with('|') => line.clone_into(&mut title),
                (None, _) => {}
            }
            within = line.starts_with('|');
        }
        Self(tables)
    }

    pub fn get(&self, at: At) -> Result<Figure, String> {
        let found = match at {
            At::Goal(figure) => self.cell(|table| table.head[0] == "figure", figure, 2),
            At::Step(step) => self.cell(|table| table.head[0] == "step", step, 1),
            At::Cell(title, row, column) => {
                let table = self.0.iter().find(|table| table.title.starts_with(title));
                let column = table.and_then(|table| table.head.iter().position(|head| head == column));
                column.and_then(|column| self.cell(|table| table.title.starts_with(title), row, column))
            }
        };
        let cell = found.ok_or_else(|| format!("docs/benchmarks.md has no figure {at:?}"))?;
        let unit = cell.split_once(") ").map_or("", |(_, unit)| unit);
        if matches!(at, At::Step(_)) && unit != "ns" {
            return Err(format!("docs/benchmarks.md has {at:?} in {unit}, not in ns"));
        }
        parsed(cell).ok_or_else(|| format!("docs/benchmarks.md has no figure, but {cell:?}, for {at:?}"))
    }

    fn cell(&self, is_wanted: impl Fn(&Table) -> bool, name: &str, column: usize) -> Option<&str> {
        let mut rows = self.0.iter().filter(|table| is_wanted(table)).flat_map(|table| &table.rows);
        let row = rows.find(|row| row[0] == name || row[..2].join(", ") == name)?;
        Some(&row[column])
    }
}

/// `12.3 (12.1 to 13.0)`, whatever follows.
fn parsed(cell: &str) -> Option<Figure> {
    let (median, rest) = cell.split_once(" (")?;
    let (low, rest) = rest.split_once(" to ")?;
    let (high, _) = rest.split_once(')')?;
    let number = |text: &str| text.parse().ok();
    Some(Figure { median: number(median)?, low: number(low)?, high: number(high)? })
}

/// What would lie silently if it were wrong.
pub fn check() {
    let figures = Figures::of(
        "| a | b |\n|---|---|\n| c | 1 |\n<!-- results -->\n\nCommand.\n\n| figure | goal | measured | met |\n|---|---|---|---|\n\
         | a | ≤ 9 MB | 2.5 (1.5 to 3.5) MB | yes |\n\nSteps:\n\n| step | time |\n|---|---|\n| b | 7 (6 to 8) ns |\n\
         | c | 1.5 (1.0 to 2.0) µs |\n\nd, closed loop\n\n| arm | users | CPU |\n|---|---|---|\n\
         | e | 10 | 1.00 (0.50 to 2.00) |\n| e | 20 | 3.00 (2.00 to 4.00) |\n\n<!-- /results -->\n",
    );
    let median = |at| figures.get(at).map(|figure| figure.median);
    assert_eq!(figures.get(At::Goal("a")), Ok(Figure { median: 2.5, low: 1.5, high: 3.5 }));
    assert_eq!(median(At::Step("b")), Ok(7.0));
    assert_eq!(median(At::Cell("d, closed", "e", "CPU")), Ok(1.0));
    assert_eq!(median(At::Cell("d, closed", "e, 20", "CPU")), Ok(3.0));
    for at in [
        At::Goal("b"),
        At::Step("c"),
        At::Cell("d", "f", "CPU"),
        At::Cell("d", "e", "GPU"),
        At::Cell("d", "e", "users"),
    ] {
        assert!(figures.get(at).is_err(), "{at:?}");
    }
}
