//! The families of the users API beside RED: business, legacy and build facts.
//!
//! This module owns their registration and their typed changes. Who changes them, and when, is the business of `api`
//! and `server`.

use std::sync::Mutex;

use prometheus::core::{Collector, Desc};
use prometheus::{Gauge, IntCounter, IntGauge, IntGaugeVec, Registry, proto};

use super::connections::ConnectionMetrics;
use super::families::Red;
use super::names;

/// Handles to the service's own families. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ServiceMetrics {
    registered: IntCounter,
    deleted: IntCounter,
    users: IntGauge,
    active_users: IntGauge,
    cpu_usage_percent: Gauge,
    connections: ConnectionMetrics,
}

/// What is running, for `api_build_info`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuildInfo {
    /// Version of the package.
    pub version: &'static str,
    /// Source revision, or `unknown` outside a checkout.
    pub revision: &'static str,
    /// Version of the compiler.
    pub rustc: &'static str,
}

impl ServiceMetrics {
    /// Registers the families, the process's own (`process_*`, Linux only) and the legacy request count.
    ///
    /// # Errors
    ///
    /// When the registry already holds one of them.
    pub fn register(registry: &Registry, red: &Red, build: BuildInfo) -> prometheus::Result<Self> {
        let metrics = Self {
            registered: IntCounter::with_opts(names::API_USERS_REGISTERED_TOTAL.opts())?,
            deleted: IntCounter::with_opts(names::API_USERS_DELETED_TOTAL.opts())?,
            users: IntGauge::with_opts(names::API_USERS.opts())?,
            active_users: IntGauge::with_opts(names::APP_ACTIVE_USERS.opts())?,
            cpu_usage_percent: Gauge::with_opts(names::APP_CPU_USAGE_PERCENT.opts())?,
            connections: ConnectionMetrics::register(registry)?,
        };
        registry.register(Box::new(metrics.registered.clone()))?;
        registry.register(Box::new(metrics.deleted.clone()))?;
        registry.register(Box::new(metrics.users.clone()))?;
        registry.register(Box::new(metrics.active_users.clone()))?;
        registry.register(Box::new(metrics.cpu_usage_percent.clone()))?;
        registry.register(Box::new(LegacyRequests::new(red.clone())?))?;

        let info = IntGaugeVec::new(names::API_BUILD_INFO.opts(), names::API_BUILD_INFO.labels)?;
        info.with_label_values(&[build.version, build.revision, build.rustc]).set(1);
        registry.register(Box::new(info))?;
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(metrics)
    }

    /// The connections' own.
    #[must_use]
    pub fn connections(&self) -> &ConnectionMetrics {
        &self.connections
    }

    /// Counts users that were created and committed.
    pub fn add_registered(&self, users: u64) {
        self.registered.inc_by(users);
    }

    /// Counts users that were deleted and committed.
    pub fn add_deleted(&self, users: u64) {
        self.deleted.inc_by(users);
    }

    /// Sets how many users the store holds.
    pub fn set_users(&self, users: i64) {
        self.users.set(users);
    }

    /// Sets the legacy gauge of active users.
    pub fn set_active_users(&self, users: i64) {
        self.active_users.set(users);
    }

    /// Sets the legacy gauge of CPU usage, in percent (0 to 100).
    pub fn set_cpu_usage_percent(&self, percent: f64) {
        self.cpu_usage_percent.set(percent);
    }
}

/// `app_requests_total`, added up when it is collected: it costs a request nothing and cannot drift from
/// `http_requests_total`.
struct LegacyRequests {
    red: Red,
    /// The lock makes reading the sum and adding the difference one step when two scrapes meet.
    total: Mutex<IntCounter>,
    desc: Vec<Desc>,
}

impl LegacyRequests {
    fn new(red: Red) -> prometheus::Result<Self> {
        let total = IntCounter::with_opts(names::APP_REQUESTS_TOTAL.opts())?;
        let desc = total.desc().into_iter().cloned().collect();
        Ok(Self { red, total: Mutex::new(total), desc })
    }
}

impl Collector for LegacyRequests {
    fn desc(&self) -> Vec<&Desc> {
        self.desc.iter().collect()
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let total = self.total.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        total.inc_by(self.red.finished_requests().saturating_sub(total.get()));
        total.collect()
    }
}
