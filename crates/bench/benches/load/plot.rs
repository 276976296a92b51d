//! Lines on paper, as SVG.

use std::fmt::Write as _;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 45.0;
const COLOURS: [&str; 4] = ["#1b6ca8", "#c8553d", "#588157", "#7d5ba6"];

/// A line: its name, and where it goes.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
    pub(crate) dashed: bool,
}

impl Line {
    pub(crate) fn new(name: &str, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.to_owned(), points, dashed: false }
    }

    /// A goal, or what would be proportional.
    pub(crate) fn dashed(name: &str, points: Vec<(f64, f64)>) -> Self {
        Self { dashed: true, ..Self::new(name, points) }
    }
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Scale {
    /// From zero.
    Plain,
    /// Both axes, so that what is proportional is a slope of one.
    Logarithmic,
}

/// A picture of `lines`.
pub(crate) fn chart(title: &str, x: &str, y: &str, scale: Scale, lines: &[Line]) -> String {
    let all = || lines.iter().flat_map(|line| line.points.iter().copied());
    let (across, up) = (Axis::of(all().map(|(x, _)| x), scale), Axis::of(all().map(|(_, y)| y), scale));
    let (wide, high) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
    let place = |(x, y): (f64, f64)| (LEFT + wide * across.share(x), TOP + high * (1.0 - up.share(y)));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"18\" font-size=\"13\" font-weight=\"bold\">{title}</text>\n"
    );
    // A string takes whatever is written.
    for tick in across.ticks() {
        let at = place((tick, up.least)).0;
        let (bottom, below) = (TOP + high, TOP + high + 15.0);
        let _ = writeln!(
            svg,
            "<path d=\"M{at:.1} {TOP}V{bottom}\" stroke=\"#e4e4e4\"/><text x=\"{at:.1}\" y=\"{below}\" text-anchor=\"middle\">{}</text>",
            short(tick)
        );
    }
    for tick in up.ticks() {
        let at = place((across.least, tick)).1;
        let (right, before) = (LEFT + wide, LEFT - 6.0);
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {at:.1}H{right}\" stroke=\"#e4e4e4\"/><text x=\"{before}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            at + 4.0,
            short(tick)
        );
    }
    let (middle, below) = (LEFT + wide / 2.0, HEIGHT - 10.0);
    let _ = writeln!(svg, "<text x=\"{middle}\" y=\"{below}\" text-anchor=\"middle\">{x}</text>");
    let (half, side) = (TOP + high / 2.0, 14.0);
    let _ = writeln!(
        svg,
        "<text transform=\"translate({side} {half}) rotate(-90)\" text-anchor=\"middle\">{y}</text>"
    );
    for (index, line) in lines.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let points = line.points.iter().map(|point| place(*point));
        let path: String = points.map(|(x, y)| format!("{x:.1},{y:.1} ")).collect();
        let dashes = if line.dashed { " stroke-dasharray=\"4 4\"" } else { "" };
        let _ = writeln!(
            svg,
            "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"{dashes}/>"
        );
        let (at, row) = (LEFT + wide + 10.0, TOP + 12.0 + 16.0 * index as f64);
        let _ = writeln!(svg, "<text x=\"{at}\" y=\"{row}\" fill=\"{colour}\">{}</text>", line.name);
    }
    svg + "</svg>\n"
}

struct Axis {
    least: f64,
    most: f64,
    scale: Scale,
}

impl Axis {
    fn of(values: impl Iterator<Item = f64>, scale: Scale) -> Self {
        let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|value| scale == Scale::Plain || *value > 0.0) {
            (least, most) = (least.min(value), most.max(value));
        }
        // Nothing that a logarithm can show.
        if scale == Scale::Logarithmic && least > most {
            (least, most) = (0.1, 1.0);
        }
        match scale {
            Scale::Plain => Self { least: 0.0, most: if most > 0.0 { most * 1.05 } else { 1.0 }, scale },
            Scale::Logarithmic => {
                let decade = |value: f64, up: bool| {
                    10_f64.powf(if up { value.log10().ceil() } else { value.log10().floor() })
                };
                let (least, most) = (decade(least, false), decade(most, true));
                Self { least, most: most.max(least * 10.0), scale }
            }
        }
    }

    /// Where on the axis `value` is, from 0 to 1.
    fn share(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Plain => (value - self.least) / (self.most - self.least),
            Scale::Logarithmic => (value.max(self.least) / self.least).ln() / (self.most / self.least).ln(),
        }
    }

    fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Plain => {
                let rough = (self.most - self.least) / 5.0;
                let decade = 10_f64.powf(rough.log10().floor());
                let step =
                    [1.0, 2.0, 5.0, 10.0].map(|step| step * decade).into_iter().find(|step| *step >= rough);
                let step = step.unwrap_or(rough);
                (0..).map(|index| f64::from(index) * step).take_while(|tick| *tick <= self.most).collect()
            }
            Scale::Logarithmic => std::iter::successors(Some(self.least), |tick| Some(tick * 10.0))
                .take_while(|tick| *tick <= self.most * 1.01)
                .collect(),
        }
    }
}

/// `1500000` as `1.5M`.
fn short(value: f64) -> String {
    let (value, unit) = match value {
        large if large >= 1e6 => (large / 1e6, "M"),
        large if large >= 1e3 => (large / 1e3, "k"),
        other => (other, ""),
    };
    let text =
        if value >= 100.0 || value == value.trunc() { format!("{value:.0}") } else { format!("{value:.3}") };
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}
