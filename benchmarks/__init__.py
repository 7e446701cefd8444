"""The benchmark harness: quorate beside etcd, PySyncObj and two limits, as real clusters of processes on loopback.

``python -m benchmarks --help`` says what can be measured; docs/performance.md is written by it.
"""
