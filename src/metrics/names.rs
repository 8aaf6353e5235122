//! Every metric this project exposes: name, help text, labels, buckets and closed label-value sets.
//!
//! No other Rust file spells a metric name or a label. Units are base units; `app_*`
//! names are legacy and frozen.

use prometheus::{HistogramOpts, Opts};

/// The definition of a metric family: everything about it but its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Definition {
    /// Full name, with its unit and, on counters, `_total`.
    pub name: &'static str,
    /// One sentence for the `# HELP` line.
    pub help: &'static str,
    /// Label names, in the order in which values are given.
    pub labels: &'static [&'static str],
}

impl Definition {
    /// Options for a counter or a gauge of the `prometheus` crate.
    #[must_use]
    pub fn opts(&self) -> Opts {
        Opts::new(self.name, self.help)
    }

    /// Options for a histogram of the `prometheus` crate with the given upper bounds, in seconds.
    #[must_use]
    pub fn histogram_opts(&self, buckets: &[f64]) -> HistogramOpts {
        HistogramOpts::new(self.name, self.help).buckets(buckets.to_vec())
    }
}

/// Label: the HTTP method, one of [`METHODS`] or [`OTHER_METHOD`].
pub const METHOD: &str = "method";
/// Label: the route template, such as `/api/users/{id}`, or [`UNMATCHED`].
pub const ROUTE: &str = "route";
/// Label: the three-digit HTTP status of the response, or [`CLIENT_CLOSED_REQUEST`].
pub const STATUS: &str = "status";
/// Label: the kind of an error, from a closed set of `snake_case` words.
pub const ERROR_TYPE: &str = "error_type";
/// Label: how something ended, from a closed set of words.
pub const RESULT: &str = "result";
/// Label: where CPU time was spent, one of [`CPU_MODES`].
pub const MODE: &str = "mode";

// ---- RED: recorded by `metrics::instrument` for any warp service ----

/// Finished requests.
pub const HTTP_REQUESTS_TOTAL: Definition = Definition {
    name: "http_requests_total",
    help: "Finished HTTP requests by method, route template and status; 499 is a client that went away.",
    labels: &[METHOD, ROUTE, STATUS],
};

/// Time from the request's head to the response's head.
pub const HTTP_REQUEST_DURATION_SECONDS: Definition = Definition {
    name: "http_request_duration_seconds",
    help: "Time from reading a request's head until its response's head is ready, in seconds.",
    labels: &[METHOD, ROUTE],
};

/// Requests being handled now.
pub const HTTP_REQUESTS_IN_PROGRESS: Definition = Definition {
    name: "http_requests_in_progress",
    help: "HTTP requests being handled now.",
    labels: &[METHOD, ROUTE],
};

/// Failed requests by kind of error.
pub const API_ERRORS_TOTAL: Definition = Definition {
    name: "api_errors_total",
    help: "Failed HTTP requests (status 400 and above) by kind of error; each counts once.",
    labels: &[ERROR_TYPE],
};

/// Upper bounds of [`HTTP_REQUEST_DURATION_SECONDS`], in seconds. 0.5 is the latency objective,
/// so the share of requests within it needs no interpolation.
pub const HTTP_REQUEST_DURATION_BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The methods of RFC 9110 and PATCH (RFC 5789): the label values a client can choose from.
pub const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE"];
/// The `method` of every request whose method is not one of [`METHODS`].
pub const OTHER_METHOD: &str = "OTHER";
/// The `route` of every request whose path fits no template.
pub const UNMATCHED: &str = "unmatched";
/// The `status` of a request whose client went away before the response's head was ready (nginx's convention).
pub const CLIENT_CLOSED_REQUEST: u16 = 499;
/// The `status` of a request whose handler unwound.
pub const PANICKED: u16 = 500;

/// The `error_type` of a request that ended as [`CLIENT_CLOSED_REQUEST`].
pub const ERROR_CLIENT_CLOSED_REQUEST: &str = "client_closed_request";
/// The `error_type` of a request whose handler unwound.
pub const ERROR_PANIC: &str = "panic";
/// The `error_type` of a 4xx response that names no kind of its own.
pub const ERROR_UNCLASSIFIED_CLIENT: &str = "unclassified_client_error";
/// The `error_type` of a 5xx response that names no kind of its own.
pub const ERROR_UNCLASSIFIED_SERVER: &str = "unclassified_server_error";

// ---- The users API ----

/// Users created and committed by this process.
pub const API_USERS_REGISTERED_TOTAL: Definition = Definition {
    name: "api_users_registered_total",
    help: "Users created by this process and committed to the store.",
    labels: &[],
};

/// Users deleted and committed by this process.
pub const API_USERS_DELETED_TOTAL: Definition = Definition {
    name: "api_users_deleted_total",
    help: "Users deleted by this process and committed to the store.",
    labels: &[],
};

/// Users in the store.
pub const API_USERS: Definition =
    Definition { name: "api_users", help: "Users in the store, whoever wrote them.", labels: &[] };

/// Build facts; the value is always 1.
pub const API_BUILD_INFO: Definition = Definition {
    name: "api_build_info",
    help: "Always 1; the labels say what is running: version, source revision and compiler.",
    labels: &["version", "revision", "rustc"],
};

// ---- Pushing from the service, while push is on ----

/// Pushes tried by this process.
pub const PUSH_ATTEMPTS_TOTAL: Definition = Definition {
    name: "push_attempts_total",
    help: "Pushes to the Pushgateway by how they ended: success, refused (it will not take them, or they \
           cannot be sent), unavailable (no answer, or one that says to try again).",
    labels: &[RESULT],
};

/// The values of [`RESULT`] on [`PUSH_ATTEMPTS_TOTAL`].
pub const PUSH_RESULTS: [&str; 3] = ["success", "refused", "unavailable"];

/// When the gateway last took a push.
pub const PUSH_LAST_SUCCESS_TIMESTAMP_SECONDS: Definition = Definition {
    name: "push_last_success_timestamp_seconds",
    help: "When the Pushgateway last took a push of this process, in seconds since 1970; 0 before the first.",
    labels: &[],
};

/// What pushes take.
pub const PUSH_DURATION_SECONDS: Definition = Definition {
    name: "push_duration_seconds",
    help: "Time from gathering the metrics until the Pushgateway's answer or the lack of one, in seconds.",
    labels: &[],
};

/// Upper bounds of [`PUSH_DURATION_SECONDS`], in seconds. The last is the time-out of one push.
pub const PUSH_DURATION_BUCKETS: [f64; 9] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// Names that the Pushgateway uses itself in each group: the moments that it adds would overwrite a push, and a family
/// called `labels` takes the place of the group's labels in its listing.
pub const PUSHGATEWAY_OWN: [&str; 3] = ["push_time_seconds", "push_failure_time_seconds", "labels"];

/// Names under which Prometheus itself records: whether a target answers, and which alerts are pending or firing.
pub const PROMETHEUS_OWN: [&str; 3] = ["up", "ALERTS", "ALERTS_FOR_STATE"];

/// What the names begin with under which Prometheus records how a scrape went.
pub const SCRAPE_PREFIX: &str = "scrape_";

// ---- Batch jobs: pushed under the job's own name, never scraped from a process ----

/// What the names of all of them begin with.
pub const BATCH_JOB_PREFIX: &str = "batch_job_";

/// When the last run started.
pub const BATCH_JOB_LAST_START_TIMESTAMP_SECONDS: Definition = Definition {
    name: "batch_job_last_start_timestamp_seconds",
    help: "When the batch job last started, in seconds since 1970.",
    labels: &[],
};

/// When the last run ended.
pub const BATCH_JOB_LAST_END_TIMESTAMP_SECONDS: Definition = Definition {
    name: "batch_job_last_end_timestamp_seconds",
    help: "When the batch job last ended, however it went, in seconds since 1970.",
    labels: &[],
};

/// When a run last ended well. Pushed by such runs only, so that a failure does not erase it.
pub const BATCH_JOB_LAST_SUCCESS_TIMESTAMP_SECONDS: Definition = Definition {
    name: "batch_job_last_success_timestamp_seconds",
    help: "When the batch job last ended with exit code 0, in seconds since 1970.",
    labels: &[],
};

/// What the last run took.
pub const BATCH_JOB_LAST_DURATION_SECONDS: Definition = Definition {
    name: "batch_job_last_duration_seconds",
    help: "How long the batch job's last run took, in seconds.",
    labels: &[],
};

/// How the last run ended.
pub const BATCH_JOB_LAST_EXIT_CODE: Definition = Definition {
    name: "batch_job_last_exit_code",
    help: "Exit code of the batch job's last run: 0 success, 124 timed out, 126 not executable, 127 not found, 128+n \
           ended by signal n.",
    labels: &[],
};

/// Whether a run is under way.
pub const BATCH_JOB_RUNNING: Definition = Definition {
    name: "batch_job_running",
    help: "1 from the batch job's start until its end, else 0; it stays 1 when the run was killed without notice.",
    labels: &[],
};

/// CPU time of the last run.
pub const BATCH_JOB_LAST_CPU_SECONDS: Definition = Definition {
    name: "batch_job_last_cpu_seconds",
    help: "CPU time that the batch job's last run and its own children used, in seconds.",
    labels: &[MODE],
};

/// The values of [`MODE`].
pub const CPU_MODES: [&str; 2] = ["user", "system"];

/// Memory of the last run.
pub const BATCH_JOB_LAST_MAX_RESIDENT_MEMORY_BYTES: Definition = Definition {
    name: "batch_job_last_max_resident_memory_bytes",
    help: "The most resident memory that one process of the batch job's last run held, in bytes.",
    labels: &[],
};

/// How often the job should succeed.
pub const BATCH_JOB_EXPECTED_INTERVAL_SECONDS: Definition = Definition {
    name: "batch_job_expected_interval_seconds",
    help: "How often the batch job is expected to succeed, in seconds; longer without success is overdue.",
    labels: &[],
};

/// Rows of the last import.
pub const IMPORT_ROWS_TOTAL: Definition = Definition {
    name: "import_rows_total",
    help: "Rows read by the last run of the import by what became of them: imported, rejected, skipped (imported by an \
           earlier run).",
    labels: &[RESULT],
};

/// The values of [`RESULT`] on [`IMPORT_ROWS_TOTAL`].
pub const IMPORT_RESULTS: [&str; 3] = ["imported", "rejected", "skipped"];

// ---- Legacy names, frozen: existing dashboards ask for them ----

/// Legacy: all finished requests, without labels.
pub const APP_REQUESTS_TOTAL: Definition = Definition {
    name: "app_requests_total",
    help: "Legacy: finished HTTP requests in all; http_requests_total has them by method, route and status.",
    labels: &[],
};

/// Legacy: set by `GET /update`.
pub const APP_ACTIVE_USERS: Definition =
    Definition { name: "app_active_users", help: "Legacy: active users as last set by GET /update.", labels: &[] };

/// Legacy: set by `GET /cpu`. It breaks the ratio rule (0 to 1); no new metric follows it.
pub const APP_CPU_USAGE_PERCENT: Definition = Definition {
    name: "app_cpu_usage_percent",
    help: "Legacy: CPU usage in percent (0 to 100) as last set by GET /cpu.",
    labels: &[],
};

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Definition; 24] = [
        HTTP_REQUESTS_TOTAL,
        HTTP_REQUEST_DURATION_SECONDS,
        HTTP_REQUESTS_IN_PROGRESS,
        API_ERRORS_TOTAL,
        API_USERS_REGISTERED_TOTAL,
        API_USERS_DELETED_TOTAL,
        API_USERS,
        API_BUILD_INFO,
        APP_REQUESTS_TOTAL,
        APP_ACTIVE_USERS,
        APP_CPU_USAGE_PERCENT,
        PUSH_ATTEMPTS_TOTAL,
        PUSH_LAST_SUCCESS_TIMESTAMP_SECONDS,
        PUSH_DURATION_SECONDS,
        BATCH_JOB_LAST_START_TIMESTAMP_SECONDS,
        BATCH_JOB_LAST_END_TIMESTAMP_SECONDS,
        BATCH_JOB_LAST_SUCCESS_TIMESTAMP_SECONDS,
        BATCH_JOB_LAST_DURATION_SECONDS,
        BATCH_JOB_LAST_EXIT_CODE,
        BATCH_JOB_RUNNING,
        BATCH_JOB_LAST_CPU_SECONDS,
        BATCH_JOB_LAST_MAX_RESIDENT_MEMORY_BYTES,
        BATCH_JOB_EXPECTED_INTERVAL_SECONDS,
        IMPORT_ROWS_TOTAL,
    ];

    #[test]
    fn names_and_labels_are_snake_case_and_carry_no_label_name() {
        for family in ALL {
            let snake = |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            assert!(snake(family.name), "{}", family.name);
            assert!(family.labels.iter().all(|label| snake(label)), "{}", family.name);
            assert!(
                family.labels.iter().all(|label| !family.name.split('_').any(|word| word == *label)),
                "{} repeats one of its labels",
                family.name
            );
        }
    }

    #[test]
    fn buckets_grow() {
        for buckets in [&HTTP_REQUEST_DURATION_BUCKETS[..], &PUSH_DURATION_BUCKETS] {
            assert!(buckets.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }
}
