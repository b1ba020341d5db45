"""The configuration groups: one folder a group, one YAML an option, its first comment line says what it is."""
