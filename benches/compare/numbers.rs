//! Medians, ratios, and how numbers are written; it knows nothing of what they mean.

/// The middle one, or between the middle two; `None` if there are none.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut values: Vec<_> = values.iter().copied().filter(|value| !value.is_nan()).collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        // Two that are endless have no middle otherwise.
        _ if values[middle - 1] == values[middle] => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

/// The median of the ratios round by round, of those rounds that both have: what slows the machine down for a while slows both
/// down. Nothing is no multiple of anything.
pub fn ratio(values: &[Option<f64>], base: &[Option<f64>]) -> Option<f64> {
    let both = values.iter().zip(base).filter_map(|(value, base)| Some(((*value)?, (*base)?)));
    let ratios: Vec<_> = both
        .filter(|(value, base)| value.is_finite() && base.is_finite() && *value > 0.0 && *base > 0.0)
        .map(|(value, base)| value / base)
        .collect();
    median(&ratios)
}

/// Three digits that count, and no more zeros than that takes.
pub fn written(value: f64) -> String {
    match value.abs() {
        _ if value.is_nan() => "–".to_owned(),
        _ if value.is_infinite() => "never".to_owned(),
        0.0 => "0".to_owned(),
        size if size >= 100.0 => thousands(value.round()),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Two digits after the point, as long as they count.
pub fn times(ratio: f64) -> String {
    if ratio >= 100.0 { written(ratio) } else { format!("{ratio:.2}") }
}

fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut parts: Vec<&str> = Vec::new();
    let mut rest = digits.as_str();
    while rest.len() > 3 {
        let (front, part) = rest.split_at(rest.len() - 3);
        parts.push(part);
        rest = front;
    }
    parts.push(rest);
    parts.reverse();
    parts.join(",")
}
