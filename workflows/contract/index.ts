/**
 * What workflows, activities and src share: ids, signals, queries and types, one file per subject. Values that cross a boundary are plain
 * JSON: no Date, Map, Set or enum object. Imports only Temporal's packages.
 */
export * from './attention';
export * from './call';
export * from './callback';
export * from './conversation';
export * from './facts';
export * from './history';
export * from './labels';
export * from './late-events';
export * from './modes';
export * from './repair';
export * from './retention';
export * from './search-attributes';
export * from './settlement';
