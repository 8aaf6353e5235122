//! Rounds in turn, and what they say together: the median and how far the rounds are apart.

/// A figure over all rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

impl Spread {
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        assert!(!values.is_empty() && values.iter().all(|value| value.is_finite()), "no figures: {values:?}");
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        Self { median, low: values[0], high: values[values.len() - 1] }
    }

    /// Of one figure in another, taken round by round: what else the machine did meets both sides of each ratio.
    pub fn ratio(of: &[f64], to: &[f64]) -> Self {
        assert_eq!(of.len(), to.len(), "a ratio needs both figures of each round");
        Self::of(of.iter().zip(to).map(|(of, to)| of / to))
    }

    /// `12.3 (12.1 to 13.0)`
    pub fn show(&self, digits: usize) -> String {
        let Self { median, low, high } = self;
        format!("{median:.digits$} ({low:.digits$} to {high:.digits$})")
    }
}

/// Measures A B C, A B C, …; gives each arm's measurements in the order of the rounds.
pub fn interleaved<A, M>(rounds: usize, arms: &mut [A], mut measure: impl FnMut(&mut A) -> M) -> Vec<Vec<M>> {
    let mut measured: Vec<Vec<M>> = arms.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for (arm, measured) in arms.iter_mut().zip(&mut measured) {
            measured.push(measure(arm));
        }
    }
    measured
}

/// One figure of each round.
pub fn each<M>(rounds: &[M], figure: impl Fn(&M) -> f64) -> Vec<f64> {
    rounds.iter().map(figure).collect()
}

/// What would lie silently if it were wrong.
pub fn check() {
    assert_eq!(Spread::of([3.0, 1.0, 10.0]), Spread { median: 3.0, low: 1.0, high: 10.0 });
    assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).median, 2.5);
    // The ratio of the medians would be 1.5.
    assert_eq!(Spread::ratio(&[2.0, 3.0, 4.0], &[1.0, 2.0, 4.0]), Spread { median: 1.5, low: 1.0, high: 2.0 });
    assert_eq!(Spread::ratio(&[1.0, 6.0, 8.0], &[1.0, 2.0, 4.0]).median, 2.0);
    let mut order = String::new();
    let measured = interleaved(2, &mut ['a', 'b'], |arm| {
        order.push(*arm);
        order.len()
    });
    assert_eq!((order.as_str(), measured), ("abab", vec![vec![1, 3], vec![2, 4]]));
}
