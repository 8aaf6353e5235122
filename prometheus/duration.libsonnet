// Prometheus durations such as `5m` as numbers. One number and one unit, which is all that the configuration uses.
{
  local units = { s: 1, m: 60, h: 3600, d: 86400 },

  seconds(duration)::
    local last = std.length(duration) - 1;
    std.parseInt(std.substr(duration, 0, last)) * units[duration[last]],

  // Sorts durations, shortest first.
  sort(durations):: std.sort(durations, self.seconds),
}
