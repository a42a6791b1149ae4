use std::path::Path;

use anyhow::Result;
use plotters::prelude::*;

use crate::report::{Latency, Row};

/// Width of the picture, and height of one of its panels.
const SIZE: (u32, u32) = (900, 280);

/// p50 of one at a time, per subject, as bars.
pub fn draw(latencies: &[Latency], path: &Path) -> Result<()> {
    let count = u32::try_from(latencies.len().max(1))?;
    let root = SVGBackend::new(path, (SIZE.0, SIZE.1 * count)).into_drawing_area();
    root.fill(&WHITE)?;
    let panels = root.split_evenly((latencies.len().max(1), 1));
    for (panel, latency) in panels.iter().zip(latencies) {
        let unit = latency.what.unit();
        let rows: Vec<(&Row, f64)> =
            latency.rows.iter().filter(|r| r.at_once == 1).map(|r| (r, r.times.p50_ms * unit.per_ms())).collect();
        let most = rows.iter().map(|(_, p50)| *p50).fold(0.0, f64::max) * 1.15;
        let mut chart = ChartBuilder::on(panel)
            .caption(format!("{}, p50 in {}", latency.what.title(), unit.name()), ("sans-serif", 16))
            .margin(10)
            .x_label_area_size(30)
            .y_label_area_size(45)
            .build_cartesian_2d((0..rows.len().saturating_sub(1)).into_segmented(), 0.0..most)?;
        let name = |at: &SegmentValue<usize>| match at {
            SegmentValue::CenterOf(index) => rows.get(*index).map_or(String::new(), |(r, _)| r.subject.to_owned()),
            _ => String::new(),
        };
        chart.configure_mesh().disable_x_mesh().x_labels(rows.len()).x_label_formatter(&name).draw()?;
        chart.draw_series(rows.iter().enumerate().map(|(index, (row, p50))| {
            let ours = row.subject.starts_with("garth");
            let colour = if ours { RGBColor(34, 110, 60) } else { RGBColor(150, 150, 150) };
            let corners = [(SegmentValue::Exact(index), 0.0), (SegmentValue::Exact(index + 1), *p50)];
            let mut bar = Rectangle::new(corners, colour.filled());
            bar.set_margin(0, 0, 6, 6);
            bar
        }))?;
        chart.draw_series(rows.iter().enumerate().map(|(index, (_, p50))| {
            let style = ("sans-serif", 12).into_font().color(&BLACK);
            let style = style.pos(plotters::style::text_anchor::Pos::new(
                plotters::style::text_anchor::HPos::Center,
                plotters::style::text_anchor::VPos::Bottom,
            ));
            Text::new(format!("{p50:.1}"), (SegmentValue::CenterOf(index), *p50), style)
        }))?;
    }
    root.present()?;
    Ok(())
}
