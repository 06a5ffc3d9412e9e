//! Medians of all rounds, as a table for people and for the documents, and as a plot.

use std::collections::BTreeMap;
use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor;

use crate::System;
use crate::bodies::{Bodies, SIZES};
use crate::floor::Floor;
use crate::scale::{PAIRS, RATE, Scale, WINDOWS};
use crate::work::{Figures, LOADS, Load};

/// Where the documents have the figures.
const BEGIN: &str = "<!-- figures -->";
const END: &str = "<!-- end of figures -->";

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Report {
    figures: BTreeMap<(usize, usize), Vec<Figures>>,
    floors: Vec<Floor>,
    bodies: Vec<Bodies>,
    scales: Vec<Scale>,
}

impl Report {
    pub fn add(&mut self, system: usize, load: usize, figures: Figures) {
        self.figures.entry((system, load)).or_default().push(figures);
    }

    pub fn add_floor(&mut self, floor: Floor) {
        self.floors.push(floor);
    }

    pub fn add_bodies(&mut self, bodies: Bodies) {
        self.bodies.push(bodies);
    }

    pub fn add_scale(&mut self, scale: Scale) {
        self.scales.push(scale);
    }

    fn median(&self, system: usize, load: usize, of: impl Fn(&Figures) -> f64) -> Option<f64> {
        median(self.figures.get(&(system, load))?.iter().map(of).collect())
    }

    /// The tables and the ratios, in Markdown.
    pub fn table(&self, systems: &[System]) -> String {
        let rates = grid(systems, |system, load| {
            let rate = self.median(system, load, |of| of.per_second)?;
            Some(format!("{}/s, {}", thousands(rate), time(self.median(system, load, |of| of.p50_us)?)))
        });
        let costs = grid(systems, |system, load| {
            let p99 = self.median(system, load, |of| of.p99_us)?;
            let [server, clients] =
                [self.median(system, load, |of| of.server_us)?, self.median(system, load, |of| of.clients_us)?];
            Some(format!("{}, {server:.1} + {clients:.1} µs", time(p99)))
        });
        let mut text = format!(
            "Messages a second, and the median from sending until the sender knows that it was delivered:\n\n{rates}\n\
             The 99th percentile of the same, and CPU time for each message, server + clients:\n\n{costs}\n"
        );
        for (system, what) in systems.iter().enumerate().skip(1) {
            let ratio = |load: usize| {
                let [ours, theirs] = [0, system].map(|of| self.median(of, load, |of| of.per_second));
                Some(format!("{:.1} ({})", ours? / theirs?, name(LOADS[load])))
            };
            let ratios: Vec<_> = (0..LOADS.len()).filter_map(ratio).collect();
            if !ratios.is_empty() {
                text += &format!("posthouse / {}: {}.\n\n", what.title(), ratios.join(", "));
            }
        }
        let of_floors = |of: fn(&Floor) -> f64| median(self.floors.iter().map(of).collect());
        if let (Some(commit), Some(trip), Some(floor), Some(ours)) = (
            of_floors(|floor| floor.commit_us),
            of_floors(|floor| floor.round_trip_us),
            of_floors(Floor::of_a_message),
            self.median(0, 0, |of| of.p50_us),
        ) {
            text += &format!(
                "One message at a time, posthouse's median is {:.2} of its floor in the same run, which is {}: one commit \
                 of its rows, {}, and two round trips of a plain quinn stream, {} each.\n",
                ours / floor,
                time(floor),
                time(commit),
                time(trip),
            );
        }
        if let Some(plain) = median(self.bodies.iter().map(|bodies| bodies.plain).collect()) {
            text += &format!("\nA plain quinn stream carries {plain:.0} MB/s one way. posthouse, one pair:\n\n");
            text += "| body | delivered | of the plain stream |\n| --- | --- | --- |\n";
            for (place, bytes) in SIZES.iter().enumerate() {
                let rate = median(self.bodies.iter().map(|bodies| bodies.posthouse[place]).collect()).unwrap_or(0.0);
                text += &format!("| {} KiB | {rate:.0} MB/s | {:.2} |\n", bytes >> 10, rate / plain);
            }
        }
        text + &self.scale()
    }

    /// What each message, and each echo, costs with few pairs and with many.
    fn scale(&self) -> String {
        if self.scales.is_empty() {
            return String::new();
        }
        let mut text = format!(
            "\nCPU time of the server, for each message; and for each echo on a plain quinn stream of as many frames as a pair \
             has on their way, with two connections for each pair:\n\n\
             | | | {} pairs | {} pairs | |\n| --- | --- | --- | --- | --- |\n",
            PAIRS[0], PAIRS[1],
        );
        let mut line = |load: &str, what: &str, figures: Vec<[f64; 2]>| {
            let [few, many] =
                [0, 1].map(|column| median(figures.iter().map(|of| of[column]).collect()).unwrap_or_default());
            text += &format!("| {load} | {what} | {few:.1} µs | {many:.1} µs | x {:.2} |\n", many / few);
        };
        for (row, window) in WINDOWS.iter().enumerate() {
            let load = format!("{window} of each pair on the way");
            line(&load, "posthouse, a message", self.scales.iter().map(|scale| scale.posthouse[row]).collect());
            line(&load, "plain quinn, an echo", self.scales.iter().map(|scale| scale.plain[row]).collect());
        }
        let load = format!("{RATE} a second of all together");
        line(&load, "posthouse, a message", self.scales.iter().map(|scale| scale.steady).collect());
        text
    }

    /// Puts the figures into a document, between its marks.
    pub fn write(&self, systems: &[System], document: &Path) -> anyhow::Result<()> {
        let old = std::fs::read_to_string(document)?;
        let marks = old.split_once(BEGIN).and_then(|(head, rest)| Some((head, rest.split_once(END)?.1)));
        let Some((head, tail)) = marks else { anyhow::bail!("{} has no {BEGIN} .. {END}", document.display()) };
        std::fs::write(document, format!("{head}{BEGIN}\n{}{END}{tail}", self.table(systems)))?;
        Ok(())
    }

    /// Draws messages a second, with a logarithmic axis: a group of bars for each load.
    pub fn plot(&self, systems: &[System], file: &Path) -> anyhow::Result<()> {
        let root = SVGBackend::new(file, (880, 420)).into_drawing_area();
        root.fill(&WHITE)?;
        let width = systems.len() + 1;
        let mut chart = ChartBuilder::on(&root)
            .margin(12)
            .x_label_area_size(28)
            .y_label_area_size(64)
            .caption("messages a second, all the way and back", ("sans-serif", 18))
            .build_cartesian_2d(0.0..(LOADS.len() * width) as f64, (100.0..300_000.0).log_scale())?;
        chart.configure_mesh().disable_x_mesh().x_labels(0).y_label_formatter(&|rate| thousands(*rate)).draw()?;
        for (system, what) in systems.iter().enumerate() {
            let color = Palette99::pick(system).to_rgba();
            let bars = (0..LOADS.len()).filter_map(|load| {
                let left = (load * width + system) as f64 + 0.5;
                let rate = self.median(system, load, |of| of.per_second)?;
                Some(Rectangle::new([(left, 100.0), (left + 0.9, rate)], color.filled()))
            });
            chart
                .draw_series(bars)?
                .label(what.title())
                .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 10, y + 5)], color.filled()));
        }
        for (load, of) in LOADS.iter().enumerate() {
            let middle = (load * width) as f64 + width as f64 / 2.0;
            let (x, y) = chart.backend_coord(&(middle, 100.0));
            let style = ("sans-serif", 14)
                .into_text_style(&root)
                .pos(text_anchor::Pos::new(text_anchor::HPos::Center, text_anchor::VPos::Top));
            root.draw(&Text::new(name(*of), (x, y + 8), style))?;
        }
        chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.3)).draw()?;
        root.present()?;
        Ok(())
    }
}

/// A table with a row for each system and a column for each load.
fn grid(systems: &[System], cell: impl Fn(usize, usize) -> Option<String>) -> String {
    let row = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = row([String::new()].into_iter().chain(LOADS.map(name)).collect());
    text += &row(vec!["---".to_owned(); 1 + LOADS.len()]);
    for (system, what) in systems.iter().enumerate() {
        let cells = (0..LOADS.len()).map(|load| cell(system, load).unwrap_or_default());
        text += &row([what.title().to_owned()].into_iter().chain(cells).collect());
    }
    text
}

fn name(load: Load) -> String {
    format!("{} x {}", load.pairs, load.window)
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn thousands(rate: f64) -> String {
    let digits = format!("{rate:.0}");
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

fn time(us: f64) -> String {
    if us < 1000.0 { format!("{us:.0} µs") } else { format!("{:.2} ms", us / 1000.0) }
}
