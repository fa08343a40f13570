//! Content negotiation: `Accept` to a format, `Accept-Encoding` to a coding. Anything odd gives plain 0.0.4 text.

use crate::expose::text::Format;

/// One element of a header list and its weight.
struct Weighted<'a> {
    value: &'a str,
    parameters: &'a str,
    weight: f32,
}

fn elements(header: &str) -> impl Iterator<Item = Weighted<'_>> {
    header.split(',').filter_map(|element| {
        let (value, parameters) = element.split_once(';').unwrap_or((element, ""));
        let weight = parameter(parameters, "q").map_or(Some(1.0), |q| q.parse().ok())?;
        Some(Weighted { value: value.trim(), parameters, weight })
    })
}

fn parameter<'a>(parameters: &'a str, name: &str) -> Option<&'a str> {
    parameters.split(';').find_map(|parameter| {
        let (key, value) = parameter.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"'))
    })
}

/// The text format that the client likes best among the two that are spoken.
pub fn format(accept: &str) -> Format {
    let spoken = |element: &Weighted<'_>| {
        let version = parameter(element.parameters, "version");
        match element.value.to_ascii_lowercase().as_str() {
            "application/openmetrics-text" => version.is_none_or(|v| v == "1.0.0").then_some(Format::OpenMetrics),
            "text/plain" => version.is_none_or(|v| v == "0.0.4").then_some(Format::Prometheus),
            "text/*" | "*/*" => Some(Format::Prometheus),
            _ => None,
        }
    };
    let mut best = (0.0, Format::Prometheus);
    for element in elements(accept) {
        if let Some(format) = spoken(&element)
            && element.weight > best.0
        {
            best = (element.weight, format);
        }
    }
    best.1
}

/// Whether to compress: only when gzip is asked for by name and not liked less than no coding at all.
pub fn gzip(accept_encoding: &str) -> bool {
    let weight = |name: &str| elements(accept_encoding).find(|e| e.value.eq_ignore_ascii_case(name)).map(|e| e.weight);
    let gzip = weight("gzip").or_else(|| weight("x-gzip")).unwrap_or(0.0);
    gzip > 0.0 && gzip >= weight("identity").unwrap_or(0.0)
}

/// Whether the client is a browser, or a person who asks for a type by name.
pub fn wants(accept: &str, media_type: &str) -> bool {
    elements(accept).any(|element| element.value.eq_ignore_ascii_case(media_type) && element.weight > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prometheus_gets_open_metrics_and_everyone_else_text() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert_eq!(format(prometheus), Format::OpenMetrics);
        for accept in ["", "*/*", "text/html", "application/openmetrics-text;version=0.0.1", "nonsense;;q=", ",,,"] {
            assert_eq!(format(accept), Format::Prometheus, "{accept}");
        }
        assert_eq!(format("application/openmetrics-text;q=0.1, text/plain;q=0.9"), Format::Prometheus);
        assert_eq!(format("application/openmetrics-text;q=0, */*;q=0.1"), Format::Prometheus);
        assert_eq!(format("text/plain;q=0.2, Application/OpenMetrics-Text"), Format::OpenMetrics);
    }

    #[test]
    fn nothing_is_compressed_unasked() {
        for yes in ["gzip", "deflate, gzip;q=0.5", "x-gzip", "gzip, identity"] {
            assert!(gzip(yes), "{yes}");
        }
        for no in ["", "*", "br", "gzip;q=0", "identity, gzip;q=0.5", "gzip;q=x"] {
            assert!(!gzip(no), "{no}");
        }
    }
}
