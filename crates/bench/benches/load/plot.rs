//! Charts, as SVG.

use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::Outcome;

const SIZE: (u32, u32) = (640, 320);
/// Room for the names of the lines.
const RIGHT: u32 = 150;
const COLOURS: [RGBColor; 4] = [
    RGBColor(0x1b, 0x6c, 0xa8),
    RGBColor(0xc8, 0x55, 0x3d),
    RGBColor(0x58, 0x81, 0x57),
    RGBColor(0x7d, 0x5b, 0xa6),
];

/// A line of a chart.
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

/// How both axes are divided.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Scale {
    /// From zero.
    Linear,
    /// What is proportional has a slope of one.
    Logarithmic,
}

/// Draws `lines`, the axes labelled `x` and `y`.
pub(crate) fn chart(title: &str, x: &str, y: &str, scale: Scale, lines: &[Line]) -> Outcome<String> {
    let all = || lines.iter().flat_map(|line| line.points.iter().copied());
    let (across, up) = (range(all().map(|(x, _)| x), scale), range(all().map(|(_, y)| y), scale));
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let (area, names) = area.split_horizontally(SIZE.0 - RIGHT);
        match scale {
            Scale::Linear => draw(&area, title, (x, y), across.0..across.1, up.0..up.1, lines)?,
            Scale::Logarithmic => {
                let (across, up) = ((across.0..across.1).log_scale(), (up.0..up.1).log_scale());
                draw(&area, title, (x, y), across, up, lines)?;
            }
        }
        for (index, line) in lines.iter().enumerate() {
            let colour = colour(index);
            let style = TextStyle::from(("sans-serif", 11)).color(&colour);
            let style = style.pos(Pos::new(HPos::Left, VPos::Center));
            names.draw(&Text::new(line.name.as_str(), (10, 42 + 16 * index as i32), style))?;
        }
        area.present()?;
    }
    Ok(svg + "\n")
}

fn draw<X, Y>(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    title: &str,
    (x, y): (&str, &str),
    across: X,
    up: Y,
    lines: &[Line],
) -> Outcome<()>
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 14))
        .margin(8)
        .x_label_area_size(35)
        .y_label_area_size(55)
        .build_cartesian_2d(across, up)?;
    chart
        .configure_mesh()
        .x_desc(x)
        .y_desc(y)
        .x_label_formatter(&|value| short(*value))
        .y_label_formatter(&|value| short(*value))
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(0xe4, 0xe4, 0xe4))
        .draw()?;
    for (index, line) in lines.iter().enumerate() {
        let (points, style) = (line.points.iter().copied(), colour(index).stroke_width(2));
        match line.dashed {
            true => chart.draw_series(DashedLineSeries::new(points, 4, 4, style))?,
            false => chart.draw_series(LineSeries::new(points, style))?,
        };
    }
    Ok(())
}

fn colour(index: usize) -> RGBColor {
    COLOURS[index % COLOURS.len()]
}

/// From the least to the most that an axis shows.
fn range(values: impl Iterator<Item = f64>, scale: Scale) -> (f64, f64) {
    let shown = values.filter(|value| scale == Scale::Linear || *value > 0.0);
    let (least, most) =
        shown.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), value| (a.min(value), b.max(value)));
    match scale {
        Scale::Linear => (0.0, if most > 0.0 { most * 1.05 } else { 1.0 }),
        Scale::Logarithmic if least > most => (0.1, 1.0),
        Scale::Logarithmic => {
            let (least, most) = (10_f64.powf(least.log10().floor()), 10_f64.powf(most.log10().ceil()));
            (least, most.max(least * 10.0))
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
    let text = format!("{value:.3}");
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}
