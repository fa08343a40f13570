//! A snapshot as one JSON object, for `kata-pulse collect --format json`.

use serde_json::{Map, Value as Json, json};

use crate::expose::family::Meta;
use crate::expose::walk::{Output, Sample};
use crate::model::identity::Labels;
use crate::model::units::Value;

/// Gathers `[{"name", "type", "help", "samples": [{"labels", "value"}]}]`.
#[derive(Debug, Default)]
pub struct JsonFamilies {
    families: Vec<Json>,
}

impl JsonFamilies {
    /// The array.
    pub fn finish(self) -> Json {
        Json::Array(self.families)
    }
}

impl Output for JsonFamilies {
    fn begin(&mut self, family: &Meta) {
        self.families.push(json!({
            "name": family.name, "type": family.kind.as_str(), "help": family.help, "samples": [],
        }));
    }

    fn sample(&mut self, family: &Meta, sample: &Sample<'_>) {
        // When it was measured is left out, as it is for every sample of `View::All`.
        let Sample { subject, values, value, at: _ } = *sample;
        let mut labels = Map::new();
        if let Some(subject) = subject {
            labels
                .extend(Labels::NAMES.iter().zip(subject.labels.values()).map(|(name, v)| ((*name).into(), v.into())));
        }
        labels.extend(family.labels.iter().zip(values).map(|(name, v)| ((*name).into(), (*v).into())));
        // Counts stay integers: JSON readers in most languages keep 64 bits of them.
        let value = match value {
            Value::Int(count) => json!(count),
            other => json!(other.as_f64()),
        };
        let samples =
            self.families.last_mut().and_then(|family| family.get_mut("samples")).and_then(Json::as_array_mut);
        if let Some(samples) = samples {
            samples.push(json!({ "labels": labels, "value": value }));
        }
    }
}
