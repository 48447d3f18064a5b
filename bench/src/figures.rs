//! Figures: what was measured in several rounds, as a table and as JSON.

use serde::Serialize;
use std::fmt::Write;

/// What is measured once a round.
#[derive(Debug, Clone, Default)]
pub struct Rounds(Vec<f64>);

impl Rounds {
    /// Adds a round.
    pub fn add(&mut self, value: f64) {
        self.0.push(value);
    }

    /// Half of the rounds are no greater.
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => f64::NAN,
            length if length % 2 == 0 => (sorted[middle - 1] + sorted[middle]) / 2.0,
            _ => sorted[middle],
        }
    }
}

impl FromIterator<f64> for Rounds {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

/// The p-th percentile of samples, which get sorted.
pub fn percentile(samples: &mut [f64], p: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    let place = (p / 100.0 * samples.len() as f64).ceil() as usize;
    samples.get(place.clamp(1, samples.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
}

/// What a figure has to be.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// The figure must be at most this.
    AtMost(f64),
    /// The figure must be at least this.
    AtLeast(f64),
}

impl Goal {
    fn holds(self, value: f64) -> bool {
        match self {
            Goal::AtMost(limit) => value <= limit,
            Goal::AtLeast(limit) => value >= limit,
        }
    }
}

/// One figure.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// What it belongs to: `call`, `stream`, …
    pub group: &'static str,
    /// The name of the figure.
    pub name: String,
    /// The unit.
    pub unit: &'static str,
    /// The median over the rounds.
    pub median: f64,
    /// The smallest of the rounds.
    pub min: f64,
    /// The maximum of all rounds.
    pub max: f64,
    /// The number of rounds.
    pub rounds: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    goal: Option<Goal>,
}

/// All figures of a run.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Figures(Vec<Figure>);

impl Figures {
    /// Adds a figure.
    pub fn add(&mut self, group: &'static str, name: impl Into<String>, unit: &'static str, rounds: &Rounds) {
        self.add_with(group, name, unit, rounds, None);
    }

    /// Adds a figure that has to be something.
    pub fn add_with_goal(
        &mut self,
        group: &'static str,
        name: impl Into<String>,
        unit: &'static str,
        rounds: &Rounds,
        goal: Goal,
    ) {
        self.add_with(group, name, unit, rounds, Some(goal));
    }

    /// Adds a figure that is counted rather than timed, so that one round tells it.
    pub fn add_count(
        &mut self,
        group: &'static str,
        name: impl Into<String>,
        unit: &'static str,
        value: f64,
    ) {
        self.add(group, name, unit, &Rounds(vec![value]));
    }

    fn add_with(
        &mut self,
        group: &'static str,
        name: impl Into<String>,
        unit: &'static str,
        rounds: &Rounds,
        goal: Option<Goal>,
    ) {
        let values = &rounds.0;
        let figure = Figure {
            group,
            name: name.into(),
            unit,
            median: rounds.median(),
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            rounds: values.len(),
            goal,
        };
        eprintln!("    {}", line(&figure));
        self.0.push(figure);
    }

    /// The figures as a table in Markdown.
    pub fn table(&self) -> String {
        let mut table = String::from(
            "| | figure | median | from … to | rounds | goal |\n| --- | --- | ---: | ---: | ---: | --- |\n",
        );
        for figure in &self.0 {
            _ = writeln!(table, "{}", line(figure));
        }
        table
    }

    /// The figures that are not what they have to be.
    pub fn missed(&self) -> Vec<&Figure> {
        self.0.iter().filter(|figure| figure.goal.is_some_and(|goal| !goal.holds(figure.median))).collect()
    }
}

fn line(figure: &Figure) -> String {
    let Figure { group, name, unit, median, min, max, rounds, goal } = figure;
    let goal = match goal {
        None => String::new(),
        Some(goal) => {
            let verdict = if goal.holds(*median) { "holds" } else { "**missed**" };
            match goal {
                Goal::AtMost(limit) => format!("≤ {} {unit}: {verdict}", short(*limit)),
                Goal::AtLeast(limit) => format!("≥ {} {unit}: {verdict}", short(*limit)),
            }
        }
    };
    let spread = if *rounds > 1 { format!("{} … {}", short(*min), short(*max)) } else { String::new() };
    format!("| {group} | {name} | {} {unit} | {spread} | {rounds} | {goal} |", short(*median))
}

/// With three significant digits, or all digits before the point.
fn short(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 100.0 || size == 0.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_percentiles_are_those_of_the_sorted_values() {
        assert_eq!([3.0, 1.0, 2.0].into_iter().collect::<Rounds>().median(), 2.0);
        assert_eq!([4.0, 1.0, 2.0, 3.0].into_iter().collect::<Rounds>().median(), 2.5);
        let mut samples: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!((percentile(&mut samples, 50.0), percentile(&mut samples, 99.0)), (100.0, 198.0));
    }

    #[test]
    fn a_missed_goal_is_told() {
        let mut figures = Figures::default();
        figures.add_with_goal("call", "p50", "ms", &[1.0, 2.0, 1.4].into_iter().collect(), Goal::AtMost(1.5));
        figures.add_with_goal("call", "calls", "/s", &[400.0].into_iter().collect(), Goal::AtLeast(450.0));
        assert_eq!(figures.missed().len(), 1);
        assert!(figures.table().contains("| call | p50 | 1.40 ms | 1.00 … 2.00 | 3 | ≤ 1.50 ms: holds |"));
        assert!(figures.table().contains("≥ 450 /s: **missed** |"));
    }
}
