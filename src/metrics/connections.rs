//! The connections of the service: how many are open, and how many were refused.

use prometheus::{IntCounterVec, IntGauge, Registry};

use super::names;

/// Why a connection was not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There were as many as there may be.
    Limit,
    /// The system would not hand it over.
    System,
}

/// Handles to the `api_connections*` families. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ConnectionMetrics {
    open: IntGauge,
    refused: IntCounterVec,
}

impl ConnectionMetrics {
    /// The families, not registered: for a server whose registry does not show them. Every reason is at 0.
    #[must_use]
    pub fn detached() -> Self {
        const WELL_FORMED: &str = "the definition is well-formed";
        let refused = &names::API_CONNECTIONS_REFUSED_TOTAL;
        let open = IntGauge::with_opts(names::API_CONNECTIONS.opts()).expect(WELL_FORMED);
        let refused = IntCounterVec::new(refused.opts(), refused.labels).expect(WELL_FORMED);
        for reason in names::REFUSAL_REASONS {
            refused.with_label_values(&[reason]);
        }
        Self { open, refused }
    }

    /// Registers the families.
    ///
    /// # Errors
    ///
    /// When the registry already holds one of them.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self::detached();
        registry.register(Box::new(metrics.open.clone()))?;
        registry.register(Box::new(metrics.refused.clone()))?;
        Ok(metrics)
    }

    /// Sets how many are open.
    pub fn set_open(&self, connections: usize) {
        self.open.set(i64::try_from(connections).unwrap_or(i64::MAX));
    }

    /// Counts one that was not served.
    pub fn add_refused(&self, refusal: Refusal) {
        let [limit, system] = names::REFUSAL_REASONS;
        let reason = match refusal {
            Refusal::Limit => limit,
            Refusal::System => system,
        };
        self.refused.with_label_values(&[reason]).inc();
    }
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::*;

    #[test]
    fn open_connections_are_a_level_and_refusals_are_counted_by_reason() {
        let registry = Registry::new();
        let metrics = ConnectionMetrics::register(&registry).unwrap();

        metrics.set_open(7);
        metrics.set_open(3);
        metrics.add_refused(Refusal::Limit);

        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for line in [
            "api_connections 3",
            "api_connections_refused_total{reason=\"limit\"} 1",
            "api_connections_refused_total{reason=\"system\"} 0",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} is not in {text}");
        }
    }
}
