//! How a run of a batch job went, as families for a push.
//!
//! This module owns which families a run pushes at its start and at its end. It refuses to push, and to read a clock:
//! the caller says when what happened.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{Gauge, GaugeVec, IntCounterVec, Registry};

use super::names::{self, Definition};

/// The families whose values are moments, and so tell which of two runs is the later one.
pub const BATCH_MOMENTS: [&str; 3] = [
    names::BATCH_JOB_LAST_START_TIMESTAMP_SECONDS.name,
    names::BATCH_JOB_LAST_END_TIMESTAMP_SECONDS.name,
    names::BATCH_JOB_LAST_SUCCESS_TIMESTAMP_SECONDS.name,
];

/// A run of a batch job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchRun {
    /// When it started.
    pub started: SystemTime,
    /// How often the job is expected to succeed, where that is known.
    pub expected_interval: Option<Duration>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchEnd {
    /// When.
    pub ended: SystemTime,
    /// How long the run took, by a clock that nobody sets.
    pub duration: Duration,
    /// 0 is success.
    pub exit_code: u8,
    /// What it used, where something ran.
    pub usage: Option<Usage>,
}

/// What the processes of a run used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// CPU time in user mode.
    pub user: Duration,
    /// CPU time in the kernel.
    pub system: Duration,
    /// The most resident memory that one of the processes held.
    pub max_resident_memory_bytes: u64,
}

impl BatchRun {
    /// The families of the push at the start, on a registry of their own.
    ///
    /// # Errors
    ///
    /// Not expected: the names are fixed and the registry is fresh.
    pub fn at_start(&self) -> prometheus::Result<Registry> {
        let registry = Registry::new();
        self.start(&registry)?;
        gauge(&registry, names::BATCH_JOB_RUNNING, 1.0)?;
        Ok(registry)
    }

    /// The families of the push at the end, on a registry of their own. The moment of the last success is among them
    /// only if this run is one.
    ///
    /// # Errors
    ///
    /// Not expected: the names are fixed and the registry is fresh.
    pub fn at_end(&self, end: &BatchEnd) -> prometheus::Result<Registry> {
        let registry = Registry::new();
        self.start(&registry)?;
        gauge(&registry, names::BATCH_JOB_RUNNING, 0.0)?;
        let ended = seconds(end.ended);
        gauge(&registry, names::BATCH_JOB_LAST_END_TIMESTAMP_SECONDS, ended)?;
        if end.exit_code == 0 {
            gauge(&registry, names::BATCH_JOB_LAST_SUCCESS_TIMESTAMP_SECONDS, ended)?;
        }
        gauge(&registry, names::BATCH_JOB_LAST_DURATION_SECONDS, end.duration.as_secs_f64())?;
        gauge(&registry, names::BATCH_JOB_LAST_EXIT_CODE, f64::from(end.exit_code))?;
        if let Some(usage) = end.usage {
            let cpu =
                GaugeVec::new(names::BATCH_JOB_LAST_CPU_SECONDS.opts(), names::BATCH_JOB_LAST_CPU_SECONDS.labels)?;
            for (mode, time) in names::CPU_MODES.into_iter().zip([usage.user, usage.system]) {
                cpu.with_label_values(&[mode]).set(time.as_secs_f64());
            }
            registry.register(Box::new(cpu))?;
            // Exact up to 2^53 bytes.
            #[allow(clippy::cast_precision_loss)]
            let memory = usage.max_resident_memory_bytes as f64;
            gauge(&registry, names::BATCH_JOB_LAST_MAX_RESIDENT_MEMORY_BYTES, memory)?;
        }
        Ok(registry)
    }

    fn start(&self, registry: &Registry) -> prometheus::Result<()> {
        gauge(registry, names::BATCH_JOB_LAST_START_TIMESTAMP_SECONDS, seconds(self.started))?;
        if let Some(interval) = self.expected_interval {
            gauge(registry, names::BATCH_JOB_EXPECTED_INTERVAL_SECONDS, interval.as_secs_f64())?;
        }
        Ok(())
    }
}

/// Whether a name in a job's group is taken: by the families of a run, by what the Pushgateway adds, or by what Prometheus
/// itself records. The gateway is scraped with `honor_labels`, so a pushed `up` would stand beside those that Prometheus
/// makes, and alerts would believe it.
#[must_use]
pub fn is_taken(name: &str) -> bool {
    [names::BATCH_JOB_PREFIX, names::SCRAPE_PREFIX].iter().any(|prefix| name.starts_with(prefix))
        || names::PUSHGATEWAY_OWN.contains(&name)
        || names::PROMETHEUS_OWN.contains(&name)
}

/// Registers what became of an import's rows, in the order of [`names::IMPORT_RESULTS`].
///
/// # Errors
///
/// When the registry holds the family already.
pub fn import_rows(registry: &Registry, rows: [u64; names::IMPORT_RESULTS.len()]) -> prometheus::Result<()> {
    let family = IntCounterVec::new(names::IMPORT_ROWS_TOTAL.opts(), names::IMPORT_ROWS_TOTAL.labels)?;
    for (result, rows) in names::IMPORT_RESULTS.into_iter().zip(rows) {
        family.with_label_values(&[result]).inc_by(rows);
    }
    registry.register(Box::new(family))
}

fn gauge(registry: &Registry, family: Definition, value: f64) -> prometheus::Result<()> {
    let gauge = Gauge::with_opts(family.opts())?;
    gauge.set(value);
    registry.register(Box::new(gauge))
}

/// Seconds since 1970; a clock before that counts as 1970.
fn seconds(moment: SystemTime) -> f64 {
    moment.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::*;

    fn text(registry: &Registry) -> String {
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        text.split_inclusive('\n').filter(|line| !line.starts_with('#')).collect()
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    const RUN: BatchRun = BatchRun { started: UNIX_EPOCH, expected_interval: None };

    #[test]
    fn the_start_says_since_when_the_job_runs_and_how_often_it_should() {
        let run = BatchRun { started: at(1000), expected_interval: Some(Duration::from_hours(1)) };

        assert_eq!(
            text(&run.at_start().unwrap()),
            "batch_job_expected_interval_seconds 3600\nbatch_job_last_start_timestamp_seconds 1000\nbatch_job_running 1\n"
        );
    }

    #[test]
    fn the_end_says_all_about_a_run_that_went_well() {
        let usage = Usage {
            user: Duration::from_millis(1500),
            system: Duration::from_millis(250),
            max_resident_memory_bytes: 4096,
        };
        let end = BatchEnd { ended: at(12), duration: Duration::from_secs(2), exit_code: 0, usage: Some(usage) };
        let run = BatchRun { started: at(10), expected_interval: None };

        assert_eq!(
            text(&run.at_end(&end).unwrap()),
            "batch_job_last_cpu_seconds{mode=\"system\"} 0.25\n\
             batch_job_last_cpu_seconds{mode=\"user\"} 1.5\n\
             batch_job_last_duration_seconds 2\n\
             batch_job_last_end_timestamp_seconds 12\n\
             batch_job_last_exit_code 0\n\
             batch_job_last_max_resident_memory_bytes 4096\n\
             batch_job_last_start_timestamp_seconds 10\n\
             batch_job_last_success_timestamp_seconds 12\n\
             batch_job_running 0\n"
        );
    }

    #[test]
    fn a_failed_run_does_not_name_a_last_success() {
        let end = BatchEnd { ended: at(1), duration: Duration::from_secs(1), exit_code: 127, usage: None };

        let text = text(&RUN.at_end(&end).unwrap());

        assert!(text.contains("batch_job_last_exit_code 127\n"), "{text}");
        assert!(!text.contains("success") && !text.contains("cpu"), "{text}");
    }

    #[test]
    fn an_imports_rows_are_counted_by_what_became_of_them() {
        let registry = Registry::new();

        import_rows(&registry, [3, 2, 1]).unwrap();

        assert_eq!(
            text(&registry),
            "import_rows_total{result=\"imported\"} 3\n\
             import_rows_total{result=\"rejected\"} 2\n\
             import_rows_total{result=\"skipped\"} 1\n"
        );
    }
}
