"""From records to tables and pages. Only this package and the command line print."""
